"""Every knob of a run, as frozen pydantic models.

A configuration is made by a recipe and changed only through :func:`override`, which names the
nearest knob when one does not exist. :func:`diff` is its inverse: ``diff(base, override(base, c))``
is exactly ``c`` for every change ``c`` that changes something.
"""

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainers.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Knobs(BaseModel):
    """Base of every group of knobs: frozen, strict, no unknown names."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Knobs):
    """Which images, at which resolution, and which of them are held out."""

    source: str = Field(
        "digits",
        description="`digits`, a folder of images, or what `dinolab ingest` made (path or URI); "
        "splits that it declares replace test_share",
    )
    image_size: int = Field(
        16, ge=4, description="side of the square each image is resampled to once, pixels"
    )
    test_share: float = Field(
        0.2, gt=0, lt=1, description="share of images held out for evaluation, the same in all arms"
    )


class AugmentConfig(Knobs):
    """Multi-crop and photometric augmentation (Caron et al. 2021, appendix A)."""

    global_crops: int = Field(2, ge=1, description="global crops an image; the teacher sees these")
    local_crops: int = Field(
        4, ge=0, description="local crops an image; only the student sees them"
    )
    global_size: int = Field(16, ge=4, description="side of a global crop, pixels")
    local_size: int = Field(8, ge=4, description="side of a local crop, pixels")
    global_scale: Interval = Field((0.5, 1.0), description="area of a global crop, share of image")
    local_scale: Interval = Field((0.2, 0.5), description="area of a local crop, share of image")
    aspect_ratio: Interval = Field((0.75, 4 / 3), description="width over height of a crop's box")
    flip: Share = Field(0.5, description="probability of a horizontal flip")
    jitter: Share = Field(0.8, description="probability of colour jitter")
    brightness: float = Field(0.4, ge=0, le=1, description="jitter factor range, 1 ± this")
    contrast: float = Field(0.4, ge=0, le=1, description="jitter factor range, 1 ± this")
    saturation: float = Field(0.2, ge=0, le=1, description="jitter factor range, 1 ± this")
    hue: float = Field(0.1, ge=0, le=0.5, description="jitter rotation range, ± this many turns")
    grayscale: Share = Field(0.2, description="probability of turning a crop grey")
    blur_first: Share = Field(1.0, description="probability of blur, first global crop")
    blur_others: Share = Field(0.1, description="probability of blur, further global crops")
    blur_local: Share = Field(0.5, description="probability of blur, local crops")
    blur_sigma: Interval = Field((0.1, 2.0), description="standard deviation of blur, pixels")
    solarize: Share = Field(0.2, description="probability of solarising further global crops")

    @model_validator(mode="after")
    def _intervals_rise(self) -> Self:
        for name in ("global_scale", "local_scale", "aspect_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must rise, got ({low}, {high})")
        for name in ("global_scale", "local_scale"):
            if getattr(self, name)[1] > 1:
                raise ValueError(f"{name} must not exceed 1, the whole image")
        if self.global_crops + self.local_crops < 2:
            raise ValueError("global_crops + local_crops must be 2 or more: DINO compares views")
        return self


class ModelConfig(Knobs):
    """The vision transformer (Dosovitskiy et al. 2021)."""

    patch_size: int = Field(4, ge=1, description="side of a patch, pixels")
    width: int = Field(48, ge=8, description="features of a token")
    depth: int = Field(3, ge=1, description="transformer blocks")
    heads: int = Field(3, ge=1, description="attention heads; divides width")
    mlp_ratio: float = Field(4.0, gt=0, description="hidden features of the MLP over width")
    initial_deviation: float = Field(
        0.02, gt=0, description="standard deviation of initial matrices, tokens and positions"
    )
    cls_position: Literal["learned", "none", "tied"] = Field(
        "learned",
        description="position added to [CLS]: an own learned one, none, or that of a patch",
    )
    cls_tied_patch: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = Field(
        (0, 0), description="row and column of the patch whose position a tied [CLS] carries"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got {self.heads} and {self.width}")
        return self


class HeadConfig(Knobs):
    """The projection head (Caron et al. 2021, appendix C)."""

    layers: int = Field(3, ge=1, description="linear layers of the MLP before the prototypes")
    hidden: int = Field(128, ge=1, description="hidden features of the MLP")
    bottleneck: int = Field(64, ge=1, description="features that meet the prototypes, unit norm")
    prototypes: int = Field(256, ge=2, description="outputs K, each a unit-norm prototype")


class LossConfig(Knobs):
    """Where the self-distillation loss sits, and how sharp the student is."""

    cls: float = Field(1.0, ge=0, description="weight of the loss on [CLS]")
    patches: float = Field(0.0, ge=0, description="weight of the loss on the mean patch token")
    student_temperature: float = Field(0.1, gt=0, description="temperature of the student")

    @model_validator(mode="after")
    def _sits_somewhere(self) -> Self:
        if self.cls == 0 and self.patches == 0:
            raise ValueError("loss.cls and loss.patches are both 0: nothing would be learned")
        return self


class TargetsConfig(Knobs):
    """How the teacher's outputs become targets."""

    kind: Literal["centering", "sinkhorn"] = Field(
        "centering",
        description="centre and sharpen (Caron et al. 2021), or Sinkhorn-Knopp (2020)",
    )
    temperature: float = Field(0.04, gt=0, description="teacher temperature after warm-up")
    temperature_start: float = Field(0.04, gt=0, description="teacher temperature at step 0")
    temperature_warmup_steps: int = Field(0, ge=0, description="length of the cosine warm-up")
    center_momentum: Share = Field(0.9, description="momentum of the centre; centering only")
    sinkhorn_iterations: int = Field(3, ge=1, description="row/column passes; sinkhorn only")


class TeacherConfig(Knobs):
    """The exponential moving average that is the teacher."""

    momentum: Share = Field(0.996, description="momentum at step 0")
    momentum_end: Share = Field(1.0, description="momentum at the last step, reached by a cosine")


class OptimizerConfig(Knobs):
    """AdamW and its schedules."""

    learning_rate: float = Field(5e-4, gt=0, description="peak learning rate")
    learning_rate_end: float = Field(1e-6, ge=0, description="learning rate at the last step")
    warmup_steps: int = Field(50, ge=0, description="linear warm-up of the learning rate")
    weight_decay: float = Field(0.04, ge=0, description="decoupled weight decay at step 0")
    weight_decay_end: float = Field(0.4, ge=0, description="weight decay at the last step")
    clip_norm: float = Field(3.0, gt=0, description="largest gradient norm of each parameter")
    freeze_last_layer_steps: int = Field(
        50, ge=0, description="first steps in which the prototypes do not move"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW first moment")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW second moment")


class EvaluationConfig(Knobs):
    """What is measured of the teacher on held-out images, at step 0 and then at a cadence."""

    every: int = Field(300, ge=1, description="steps between evaluations; the last step always")
    batch_size: int = Field(256, ge=1, description="images a forward pass")
    knn_neighbours: int = Field(20, ge=1, description="k of weighted k-NN (Caron et al. use 20)")
    knn_temperature: float = Field(0.07, gt=0, description="temperature of the k-NN votes")
    globality_images: int = Field(
        256, ge=1, description="held-out images whose attention is measured, at most"
    )
    globality_layers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 2),
        min_length=1,
        description="primary layer set, blocks counted from 1; the final block is reported apart",
    )
    query_chunk: int = Field(
        64, ge=1, description="patch queries whose attention is held at once, bounds memory"
    )


class TrainConfig(Knobs):
    """One run of DINO training, whole: same configuration and seed, same bits."""

    seed: int = Field(0, ge=0, lt=2**63, description="seed of every random draw")
    steps: int = Field(600, ge=1, description="optimiser steps")
    batch_size: int = Field(32, ge=1, description="images a step, over all workers")
    log_every: int = Field(20, ge=1, description="steps between records of the training loss")
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints")
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    head: HeadConfig = HeadConfig()
    loss: LossConfig = LossConfig()
    targets: TargetsConfig = TargetsConfig()
    teacher: TeacherConfig = TeacherConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
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


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One knob: its dotted name, allowed type, default and meaning."""

    name: str
    type: str
    default: object
    description: str


def knobs(group: type[BaseModel] = TrainConfig, prefix: str = "") -> Iterator[Knob]:
    """Every knob of `group`, depth first, in the order in which the fields stand."""
    for name, field in group.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from knobs(annotation, f"{prefix}{name}.")
        else:
            shown = annotation.__name__ if isinstance(annotation, type) else str(annotation)
            yield Knob(
                name=prefix + name,
                type=shown.replace("typing.", ""),
                default=field.default,
                description=field.description or "",
            )


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
