"""Every knob of a run, as frozen pydantic models.

A configuration is made by a recipe and changed only through :func:`override`, which names the
nearest knob when one does not exist. :func:`diff` is its inverse: ``diff(base, override(base, c))``
is exactly ``c`` for every change ``c`` that changes something.
"""

import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainers.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Place = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
Coordinate = Annotated[float, Field(ge=-1, le=1)]

DINO = "Caron et al. 2021"
VIT = "Dosovitskiy et al. 2021"
OURS = "dinolab"


def knob(default: Any, meaning: str, *, unit: str = "", source: str, **constraints: Any) -> Any:
    """A field with its default, meaning, unit and source, and what pydantic checks of it."""
    notes: dict[str, Any] = {"unit": unit, "source": source}
    return Field(default, description=meaning, json_schema_extra=notes, **constraints)


class Knobs(BaseModel):
    """Base of every group of knobs: frozen, strict, no unknown names."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Knobs):
    """Which images, at which resolution, and which of them are held out."""

    source: str = knob(
        "digits",
        "`digits`, `photographs`, a folder of images, or what `dinolab ingest` made (path or URI)",
        source=OURS,
    )
    image_size: int = knob(
        16, "side of the square each image is resampled to once", unit="pixels", source=OURS, ge=4
    )
    test_share: float = knob(
        0.2,
        "images held out for evaluation where the data set has no split, the same in all arms",
        unit="share",
        source=OURS,
        gt=0,
        lt=1,
    )


class AugmentConfig(Knobs):
    """Multi-crop and photometric augmentation (Caron et al. 2021, appendix A)."""

    global_crops: int = knob(
        2, "global crops an image; the teacher sees these", source="SwAV; " + DINO, ge=1
    )
    local_crops: int = knob(
        4, "local crops an image; only the student sees them", source="SwAV; " + DINO, ge=0
    )
    global_size: int = knob(16, "side of a global crop", unit="pixels", source=DINO, ge=4)
    local_size: int = knob(8, "side of a local crop", unit="pixels", source=DINO, ge=4)
    global_scale: Interval = knob(
        (0.5, 1.0), "area of a global crop", unit="share of image", source=DINO
    )
    local_scale: Interval = knob(
        (0.2, 0.5), "area of a local crop", unit="share of image", source=DINO
    )
    aspect_ratio: Interval = knob(
        (0.75, 4 / 3), "width over height of a crop's box", source="Szegedy et al. 2015"
    )
    flip: Share = knob(0.5, "probability of a horizontal flip", source=DINO)
    jitter: Share = knob(0.8, "probability of colour jitter", source="BYOL; " + DINO)
    brightness: Share = knob(0.4, "jitter factor range, 1 ± this", source="BYOL; " + DINO)
    contrast: Share = knob(0.4, "jitter factor range, 1 ± this", source="BYOL; " + DINO)
    saturation: Share = knob(0.2, "jitter factor range, 1 ± this", source="BYOL; " + DINO)
    hue: float = knob(
        0.1, "jitter rotation range, ± this", unit="turns", source="BYOL; " + DINO, ge=0, le=0.5
    )
    grayscale: Share = knob(0.2, "probability of turning a crop grey", source="BYOL; " + DINO)
    blur_first: Share = knob(1.0, "probability of blur, first global crop", source=DINO)
    blur_others: Share = knob(0.1, "probability of blur, further global crops", source=DINO)
    blur_local: Share = knob(0.5, "probability of blur, local crops", source=DINO)
    blur_sigma: Interval = knob(
        (0.1, 2.0), "standard deviation of blur", unit="pixels", source=DINO
    )
    solarize: Share = knob(
        0.2, "probability of solarising further global crops", source="BYOL; " + DINO
    )
    shuffle: Literal["none", "patches", "pixels"] = knob(
        "none",
        "what of each training crop is put in random order, destroying spatial coherence",
        source="METRICS A.9, controls",
    )

    @model_validator(mode="after")
    def _intervals_rise(self) -> Self:
        for name in ("global_scale", "local_scale", "aspect_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must rise, got ({low}, {high})")
        for name in ("global_scale", "local_scale"):
            if getattr(self, name)[1] > 1:
                raise ValueError(f"{name} must not exceed 1, the whole image")
        return self


class ModelConfig(Knobs):
    """The vision transformer (Dosovitskiy et al. 2021)."""

    patch_size: int = knob(4, "side of a patch", unit="pixels", source=VIT, ge=1)
    width: int = knob(48, "features of a token", source=VIT, ge=8)
    depth: int = knob(3, "transformer blocks", source=VIT, ge=1)
    heads: int = knob(3, "attention heads; divides width", source=VIT, ge=1)
    mlp_ratio: float = knob(4.0, "hidden features of the MLP over width", source=VIT, gt=0)
    drop_path: float = knob(
        0.0,
        "share of images that skip the last block's branches in training; rises from 0 by depth",
        source="Huang et al. 2016; " + DINO,
        ge=0,
        lt=1,
    )
    initial_deviation: float = knob(
        0.02,
        "standard deviation of initial matrices, tokens and positions",
        source=DINO,
        gt=0,
    )
    patch_position: Literal["learned", "sincos", "rotary", "none"] = knob(
        "learned",
        "position of patches: learned and added, fixed sine-cosine and added, rotated into "
        "queries and keys, or none",
        source=f"{VIT}; MoCo v3; DINOv3",
    )
    interpolation_offset: float = knob(
        0.0,
        "added to a crop's size when learned positions are interpolated for it; DINO's code: 0.1",
        unit="patches",
        source="facebookresearch/dino, issue 8",
        ge=0,
        lt=1,
    )
    rotary_base: float = knob(
        100.0, "longest period over the shortest, rotary positions only", source="DINOv3", gt=1
    )
    rotary_origin: Literal["centre", "corner"] = knob(
        "centre",
        "where coordinate 0 lies: an unrotated token attends as if it stood there",
        source="METRICS finding 2",
    )
    cls: bool = knob(True, "whether there is a [CLS] token", source=VIT)
    cls_position: Literal["learned", "none", "tied", "random", "sincos", "rotary"] = knob(
        "learned",
        "position of [CLS]: its own learned one, none, that of a patch, that of a random patch at "
        "each forward, sine-cosine or rotary at cls_coordinate",
        source="METRICS findings 1 and 2",
    )
    cls_tied_patch: Place = knob(
        (0, 0),
        "row and column of the patch whose position a tied [CLS] carries",
        source="METRICS finding 1",
    )
    cls_coordinate: tuple[Coordinate, Coordinate] = knob(
        (0.0, 0.0),
        "where a sincos or rotary [CLS] stands, down and right; ±1 are the image's borders",
        unit="half images from the centre",
        source="METRICS finding 2",
    )
    registers: int = knob(0, "extra tokens without position", source="Darcet et al. 2024", ge=0)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got {self.heads} and {self.width}")
        if "sincos" in (self.patch_position, self.cls_position) and self.width % 4:
            raise ValueError(f"sincos positions need a width divisible by 4, got {self.width}")
        if self.patch_position == "rotary" and self.width // self.heads % 4:
            raise ValueError(
                "rotary positions need width / heads divisible by 4, got "
                f"{self.width} / {self.heads}"
            )
        if self.cls_position == "rotary" and self.patch_position != "rotary":
            raise ValueError("cls_position rotary needs patch_position rotary")
        added = ("learned", "sincos")
        if self.cls_position in ("tied", "random") and self.patch_position not in added:
            raise ValueError(
                f"cls_position {self.cls_position} needs patch_position learned or sincos, "
                f"got {self.patch_position}"
            )
        return self


SIZES: Mapping[str, Mapping[str, int]] = types.MappingProxyType(
    {
        "tiny": {"width": 192, "depth": 12, "heads": 3},
        "small": {"width": 384, "depth": 12, "heads": 6},
        "base": {"width": 768, "depth": 12, "heads": 12},
    }
)
"""Shapes of the published ViTs (Touvron et al. 2021 for tiny and small), as changes of a model."""


class HeadConfig(Knobs):
    """The projection head (Caron et al. 2021, appendix C)."""

    layers: int = knob(3, "linear layers of the MLP before the prototypes", source=DINO, ge=1)
    hidden: int = knob(128, "hidden features of the MLP", source=DINO, ge=1)
    bottleneck: int = knob(64, "features that meet the prototypes, unit norm", source=DINO, ge=1)
    prototypes: int = knob(256, "outputs K", source=DINO, ge=2)
    norm_last_layer: bool = knob(
        True, "whether prototypes keep unit norm, or learn their norms too", source=DINO
    )
    batch_norm: bool = knob(
        False, "whether hidden layers are normalised over the global batch", source=DINO
    )


class LossConfig(Knobs):
    """Where the loss sits, by weights: all 0 leaves the model untrained."""

    cls: float = knob(1.0, "weight of self-distillation on [CLS]", source=DINO, ge=0)
    patches: float = knob(0.0, "weight of the same on the mean patch token", source=OURS, ge=0)
    dense: float = knob(
        0.0,
        "weight of the same on every patch, matched to the most similar patch of the other view",
        source="Li et al. 2022 (EsViT), eq. 3",
        ge=0,
    )
    register_token: float = knob(
        0.0, "weight of the same on the first register", source="METRICS, claim 5", ge=0
    )
    fixed_patch: float = knob(
        0.0,
        "weight of the same on one patch, always at the same place",
        source="METRICS, claim 5",
        ge=0,
    )
    fixed_patch_place: tuple[Coordinate, Coordinate] = knob(
        (0.0, 0.0),
        "where that patch lies, down and right; ±1 are the crop's borders",
        unit="half crops from the centre",
        source="METRICS, claim 5",
    )
    masked: float = knob(
        0.0,
        "weight of self-distillation on masked patches of the student's global crops",
        source="Zhou et al. 2022 (iBOT), eq. 2",
        ge=0,
    )
    mask_share: Interval = knob(
        (0.1, 0.5), "patches masked in a masked crop", unit="share", source="iBOT"
    )
    mask_probability: Share = knob(0.5, "probability that a global crop is masked", source="iBOT")
    labels: float = knob(
        0.0,
        "weight of supervised cross-entropy on [CLS], through a linear classifier",
        source=VIT,
        ge=0,
    )
    koleo: float = knob(
        0.0,
        "weight of the KoLeo spread of [CLS] (the mean patch without one) within a batch",
        source="Sablayrolles et al. 2019; Oquab et al. 2024",
        ge=0,
    )
    student_temperature: float = knob(0.1, "temperature of the student", source=DINO, gt=0)

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        low, high = self.mask_share
        if low > high or high > 1:
            raise ValueError(f"mask_share must rise and not exceed 1, got ({low}, {high})")
        return self


class TargetsConfig(Knobs):
    """How the teacher's outputs become targets."""

    kind: Literal["centering", "sinkhorn", "none"] = knob(
        "centering",
        "centred softmax, Sinkhorn-Knopp over the global batch, or plain softmax",
        source=f"{DINO}; Caron et al. 2020",
    )
    sharpening: bool = knob(
        True,
        "whether targets are made at the teacher's own temperature, or at the student's",
        source=DINO + ", section 5.3",
    )
    temperature: float = knob(0.04, "teacher temperature after warm-up", source=DINO, gt=0)
    temperature_start: float = knob(0.04, "teacher temperature at step 0", source=DINO, gt=0)
    temperature_warmup_steps: int = knob(
        0, "length of the linear warm-up", unit="steps", source=DINO, ge=0
    )
    center_momentum: Share = knob(0.9, "momentum of the center; centering only", source=DINO)
    sinkhorn_iterations: int = knob(
        3, "row and column passes; sinkhorn only", source="Caron et al. 2020", ge=1
    )


class TeacherConfig(Knobs):
    """What the teacher is."""

    kind: Literal["ema", "frozen", "student"] = knob(
        "ema",
        "moving average of the student, the student at step 0, or the student itself",
        source=DINO + ", section 5.2",
    )
    momentum: Share = knob(0.996, "momentum at step 0; ema only", source=DINO)
    momentum_end: Share = knob(
        1.0, "momentum that a cosine leads to over the run; ema only", source=DINO
    )


class OptimizerConfig(Knobs):
    """AdamW and its schedules."""

    learning_rate: float = knob(
        5e-4, "peak learning rate, for the batch as it is", source=DINO, gt=0
    )
    learning_rate_end: float = knob(
        1e-6, "learning rate that a cosine leads to over the run", source=DINO, ge=0
    )
    warmup_steps: int = knob(
        50, "linear warm-up of the learning rate", unit="steps", source=DINO, ge=0
    )
    weight_decay: float = knob(0.04, "decoupled weight decay at step 0", source=DINO, ge=0)
    weight_decay_end: float = knob(
        0.4, "weight decay that a cosine leads to over the run", source=DINO, ge=0
    )
    clip_norm: float = knob(3.0, "largest gradient norm of each parameter", source=DINO, gt=0)
    freeze_last_layer_steps: int = knob(
        50, "first steps in which the prototypes do not move", unit="steps", source=DINO, ge=0
    )
    beta1: float = knob(0.9, "AdamW first moment", source="Loshchilov & Hutter 2019", ge=0, lt=1)
    beta2: float = knob(0.999, "AdamW second moment", source="Loshchilov & Hutter 2019", ge=0, lt=1)


class ComputeConfig(Knobs):
    """How the same mathematics is computed."""

    precision: Literal["fp32", "bf16"] = knob(
        "fp32", "numbers in which the networks compute; losses and weights stay fp32", source=OURS
    )
    compile: bool = knob(
        False, "whether blocks are compiled before the first step", source="torch.compile"
    )
    activation_checkpointing: bool = knob(
        False,
        "whether blocks are computed again in the backward pass, to save memory",
        source="Chen et al. 2016",
    )
    accumulate: int = knob(
        1,
        "parts into which a worker's images are split for forward and backward; center, EMA and "
        "schedules move once a step, whatever this is",
        source=OURS,
        ge=1,
    )
    sharded: bool = knob(
        False, "whether several workers share parameters and moments", source="PyTorch FSDP2"
    )


class EvaluationConfig(Knobs):
    """What is measured of the teacher on held-out images, at step 0 and then at a cadence."""

    every: int = knob(
        300, "time between evaluations; the last step always", unit="steps", source=OURS, ge=1
    )
    batch_size: int = knob(256, "images a forward pass", source=OURS, ge=1)
    knn_neighbours: int = knob(20, "k of weighted k-NN", source=DINO, ge=1)
    knn_temperature: float = knob(0.07, "temperature of the k-NN votes", source=DINO, gt=0)
    probes: bool = knob(
        True,
        "whether the linear and the position probe are trained, at step 0 and the last",
        source=DINO,
    )
    linear_blocks: int = knob(
        4, "last blocks whose [CLS] outputs the linear probe sees, at most", source=DINO, ge=1
    )
    linear_penalty: float = knob(
        1e-3, "L2 penalty of the linear probe", unit="nats", source=OURS, gt=0
    )
    position_images: int = knob(
        256, "images whose patches the position probe sees, at most", source=OURS, ge=4
    )
    globality_images: int = knob(
        4096,
        "held-out images on which globality is measured at step 0 and at the last, at most",
        source="METRICS A.9",
        ge=1,
    )
    globality_probe_images: int = knob(
        64,
        "the first held-out images, on which attention of teacher and student is measured each "
        "time",
        source="METRICS A.9",
        ge=1,
    )
    causal_images: int = knob(
        32,
        "images on which influence and gradient reach are measured, below 2 none",
        source="METRICS M11",
        ge=0,
    )
    replacement: Literal["mean", "other"] = knob(
        "mean",
        "what stands in for a patch whose influence is measured: the mean patch at its place, or "
        "that of another image",
        source="Parodi et al. 2026",
    )
    patch_queries: int = knob(
        64,
        "patch queries that are measured on grids of more than 196 patches, spread over them",
        source="METRICS A.9",
        ge=1,
    )
    attention_memory: float = knob(
        16.0, "attention weights held at once while measuring", unit="MiB", source=OURS, gt=0
    )
    globality_layers: tuple[Annotated[int, Field(ge=1)], ...] = knob(
        (1, 2),
        "primary layer set, blocks counted from 1; the final block is reported apart",
        source="METRICS, layer sets",
        min_length=1,
    )


class TrainConfig(Knobs):
    """One run of DINO training, whole: same configuration and seed, same bits."""

    seed: int = knob(0, "seed of every random draw, below 2⁶³", source=OURS, ge=0, lt=2**63)
    steps: int = knob(600, "length of the run", unit="optimiser steps", source=OURS, ge=1)
    batch_size: int = knob(32, "images a step, over all workers", source=OURS, ge=1)
    log_every: int = knob(
        20, "time between records of the training loss", unit="steps", source=OURS, ge=1
    )
    checkpoint_every: int = knob(200, "time between checkpoints", unit="steps", source=OURS, ge=1)
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    head: HeadConfig = HeadConfig()
    loss: LossConfig = LossConfig()
    targets: TargetsConfig = TargetsConfig()
    teacher: TeacherConfig = TeacherConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    compute: ComputeConfig = ComputeConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        patch = self.model.patch_size
        for name, side in (
            ("data.image_size", self.data.image_size),
            ("augment.global_size", self.augment.global_size),
            ("augment.local_size", self.augment.local_size),
        ):
            if side % patch:
                raise ValueError(f"{name} must be a multiple of model.patch_size {patch}: {side}")
        grid = self.augment.global_size // patch
        if max(self.model.cls_tied_patch) >= grid:
            raise ValueError(
                f"model.cls_tied_patch must lie in the {grid}×{grid} grid: "
                f"{self.model.cls_tied_patch}"
            )
        if max(self.evaluation.globality_layers) > self.model.depth:
            raise ValueError(
                f"evaluation.globality_layers must be 1..{self.model.depth} (model.depth): "
                f"{self.evaluation.globality_layers}"
            )
        return self

    @model_validator(mode="after")
    def _loss_has_what_it_needs(self) -> Self:
        loss, model = self.loss, self.model
        for name in ("cls", "labels"):
            if getattr(loss, name) and not model.cls:
                raise ValueError(
                    f"loss.{name} needs a [CLS] token: set model.cls, or loss.{name} 0"
                )
        if loss.register_token and not model.registers:
            raise ValueError(
                "loss.register_token needs a register: set model.registers to 1 or more"
            )
        views = self.augment.global_crops + self.augment.local_crops
        compared = ("cls", "patches", "dense", "register_token", "fixed_patch")
        if views < 2 and any(getattr(loss, name) for name in compared):
            raise ValueError(
                "augment.global_crops + augment.local_crops must be 2 or more: "
                "self-distillation compares views"
            )
        if self.compute.accumulate > 1 and (loss.koleo or self.head.batch_norm):
            raise ValueError(
                "compute.accumulate must be 1 with loss.koleo or head.batch_norm: "
                "both look at the whole batch at once"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One knob: its dotted name, type, range, default, unit, meaning and source."""

    name: str
    type: str
    allowed: str
    default: object
    unit: str
    description: str
    source: str


def knobs(group: type[BaseModel] = TrainConfig, prefix: str = "") -> Iterator[Knob]:
    """Every knob of `group`, depth first, in the order in which the fields stand."""
    for name, field in group.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from knobs(annotation, f"{prefix}{name}.")
            continue
        notes = typing.cast(dict[str, str], field.json_schema_extra)
        yield Knob(
            name=prefix + name,
            type=_type_of(annotation),
            allowed=_range_of(annotation, field.metadata),
            default=field.default,
            unit=notes["unit"],
            description=field.description or "",
            source=notes["source"],
        )


def _type_of(annotation: Any) -> str:
    if typing.get_origin(annotation) is Annotated:
        return _type_of(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is Literal:
        return "choice"
    if typing.get_origin(annotation) is tuple:
        inside = typing.get_args(annotation)
        shown = [_type_of(part) for part in inside if part is not Ellipsis]
        return f"{shown[0]}, ..." if Ellipsis in inside else ", ".join(shown)
    return str(annotation.__name__)


def _range_of(annotation: Any, metadata: list[Any]) -> str:
    """What a value may be, as text: choices, or bounds such as `>= 0, < 1`."""
    if typing.get_origin(annotation) is Literal:
        return " | ".join(typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        inside = typing.get_args(annotation)[0]
        return _range_of(*_unpacked(inside))
    bounds = []
    for part in metadata:
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            if (bound := getattr(part, name, None)) is not None:
                bounds.append(f"{sign} {bound:g}")
    if annotation is bool:
        return "true | false"
    return ", ".join(bounds)


def _unpacked(annotation: Any) -> tuple[Any, list[Any]]:
    """An annotation without its `Annotated`, and pydantic's constraints in it."""
    if typing.get_origin(annotation) is not Annotated:
        return annotation, []
    inner, *extra = typing.get_args(annotation)
    return inner, [one for part in extra for one in getattr(part, "metadata", [part])]


def flatten(config: BaseModel) -> dict[str, Any]:
    """Dotted knob name -> JSON value, depth first."""
    return dict(leaves(config.model_dump(mode="json")))


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every leaf of nested mappings, depth first."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def override(base: TrainConfig, change: Mapping[str, Any]) -> TrainConfig:
    """`base` with the dotted knobs of `change` set.

    Raises ConfigError, one line for each problem: an unknown knob (with the nearest name), a value
    of the wrong type or out of range, a combination that does not fit together.
    """
    tree = base.model_dump(mode="json")
    known = flatten(base)
    problems = []
    for name, value in change.items():
        if name not in known:
            problems.append(f"{name}: no such knob{nearest(name, known)}")
            continue
        *groups, leaf = name.split(".")
        place = tree
        for group in groups:
            place = place[group]
        place[leaf] = value
    if not problems:
        try:
            return TrainConfig.model_validate_json(json.dumps(tree))
        except ValidationError as error:
            problems = explain(error)
        except TypeError as error:
            problems = [f"{', '.join(change)}: not a value that JSON knows: {error}"]
    raise ConfigError("\n".join(problems))


def diff(base: TrainConfig, other: TrainConfig) -> dict[str, Any]:
    """The dotted knobs in which `other` differs from `base`, with the values of `other`."""
    before = flatten(base)
    return {name: value for name, value in flatten(other).items() if value != before[name]}


def fingerprint(config: BaseModel) -> str:
    """Hexadecimal SHA-256 of the configuration's canonical JSON."""
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def nearest(name: str, known: Mapping[str, object] | list[str]) -> str:
    """`"; did you mean X?"` for the closest of `known`, or an empty text when none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def explain(error: ValidationError) -> list[str]:
    """One line for each problem of a pydantic error: where, what is wrong, what was given."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        given = problem["input"]
        shown = "" if isinstance(given, dict) else f" (given: {given!r})"
        lines.append((f"{where}: " if where else "") + message + shown)
    return lines
