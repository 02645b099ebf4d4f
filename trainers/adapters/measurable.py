"""Any ViT that can be measured, from whatever names it: a checkpoint, a file, a folder, timm."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainers.adapters.hugging_face_models import is_hugging_face, open_hugging_face
from trainers.adapters.pretrained import load_backbone, read_weights
from trainers.adapters.timm_models import TimmBackbone, open_timm
from trainers.config import DataConfig, ModelConfig
from trainers.data.augment import IMAGENET, Colours
from trainers.errors import CheckpointError, ConfigError, InputError
from trainers.grid import Grid
from trainers.model.positions import patch_at
from trainers.randomness.forward_draws import ForwardDraws, keyed, wandering_cls
from trainers.runs.saved_run import find_run, load_run
from trainers.training.checkpoint import FILE_NAME, is_checkpoint

MOST_PATCHES = 256
"""Patches a side of the largest grid that is measured: more than any machine's memory takes."""

_FILES = (".safetensors", ".pth", ".pt", ".bin")
_TIMM_FOLDER = ("model.safetensors", "pytorch_model.bin")

Draws = Callable[[Tensor, Grid], ForwardDraws]
"""Of images by their identifiers and of a grid, what a forward pass leaves to chance."""


@dataclass(frozen=True, kw_only=True)
class Measurable:
    """A frozen ViT on the CPU, and what is to be known of it."""

    network: nn.Module
    """with the forward contract of `Observable`"""
    name: str
    weights: str
    """where its parameters come from, in words"""
    is_random: bool
    """whether its parameters are not trained"""
    depth: int
    has_cls: bool
    registers: int
    patch_size: int
    image_size: int
    """its own, pixels"""
    mean: Colours
    deviation: Colours
    normalisation: str
    """whose mean and deviation these are, in words"""
    notes: tuple[str, ...] = ()
    """what else a reader must know, a sentence each"""
    fixed_patch_place: tuple[float, float] | None = None
    """the patch that carries a loss, if one does"""
    draws: Draws = lambda identifiers, grid: ForwardDraws()
    trained_on: DataConfig | None = None

    @property
    def parameters(self) -> int:
        """How many numbers its parameters are."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def grid(self, size: int) -> Grid:
        """Rows and columns of patches of images of `size` pixels a side.

        Raises InputError when it is no multiple of the patch, or the grid too small or too large
        to measure.
        """
        patch = self.patch_size
        if size > MOST_PATCHES * patch:
            raise InputError(
                f"size {size}: {size // patch} patches a side, but at most {MOST_PATCHES} are "
                f"measured, {MOST_PATCHES * patch} pixels"
            )
        if size % patch or size < 2 * patch:
            below = max(2, size // patch) * patch
            raise InputError(
                f"size {size}: {self.name} needs a multiple of its patch of {patch} pixels, two "
                f"patches or more; nearest are {below} and {below + patch}"
            )
        return size // patch, size // patch

    def fixed_patch(self, grid: Grid) -> int | None:
        """The number of the patch that is measured by itself, if there is one."""
        return patch_at(self.fixed_patch_place, grid) if self.fixed_patch_place else None

    def primary_layers(self) -> tuple[int, ...]:
        """The primary layer set: the last third without the final block (METRICS, layer sets).

        Of fewer than six blocks all but the final one, at least the first.
        """
        third = self.depth // 3 if self.depth >= 6 else self.depth
        return tuple(range(self.depth - third + 1, self.depth)) or (1,)


def open_measurable(
    model: str, *, weights: Path | None = None, published: bool = False, seed: int = 0
) -> Measurable:
    """The ViT that `model` names.

    A checkpoint of ours (file, its folder, or a run's), a file of weights under official DINO or
    timm names, a folder of Hugging Face's or timm's, or the name of a timm ViT. Of a name, values
    come from the file `weights`, from timm's `published` ones (downloaded), or from chance, keyed
    by `seed`. Raises InputError, one line, when there is no such model or it cannot be measured.
    """
    path = Path(model).expanduser()
    try:
        if path.exists():
            if weights is not None or published:
                raise InputError(
                    f"{model} is on disk and has its own weights: --weights and --pretrained are "
                    "for a timm name"
                )
            return _from_disk(path)
        if "/" in model or model.endswith(_FILES):
            raise InputError(
                f"{model} is not there: give a checkpoint, a run folder, a file of weights, a "
                "Hugging Face folder or the name of a timm ViT"
            )
        if weights is not None and published:
            raise InputError("--weights and --pretrained exclude each other")
        if weights is not None and not weights.is_file():
            raise InputError(f"--weights {weights}: there is no such file")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = open_timm(model, weights, published=published)
    except CheckpointError as error:
        raise InputError(_shortened(str(error))) from error
    source = f"random, seed {seed}"
    if weights is not None:
        source = f"file {weights}"
    elif published:
        source = "published by timm" + _tag(backbone)
    return _of_timm(backbone, model, source, is_random=weights is None and not published)


def _from_disk(path: Path) -> Measurable:
    if path.is_file():
        return _from_run(path) if is_checkpoint(path) else _from_weights(path)
    if is_hugging_face(path):
        return _from_hugging_face(path)
    if (architecture := _timm_architecture(path)) is not None:
        for name in _TIMM_FOLDER:
            if (path / name).is_file():
                backbone = open_timm(architecture, path / name)
                source = f"file {path / name}"
                return _of_timm(backbone, path.resolve().name, source, is_random=False)
    if any((folder / FILE_NAME).is_file() for folder in (path, path / "checkpoint")):
        return _from_run(path)
    raise InputError(
        f"{path} holds no model: no {FILE_NAME} of ours, here or in checkpoint/, and no "
        "config.json of a model that Hugging Face's transformers or timm saved"
    )


def _from_run(path: Path) -> Measurable:
    run = find_run(path)
    config = run.trained
    teacher = load_run(run, torch.device("cpu")).teacher.eval()
    fixed = config.loss.fixed_patch_place if config.loss.fixed_patch else None
    return Measurable(
        network=teacher.backbone,
        name=run.checkpoint.absolute().parent.name if path.is_file() else path.resolve().name,
        weights=f"teacher of {run.checkpoint}, step {run.step} of {config.steps}",
        is_random=run.step == 0,
        **_shape(config.model, config.augment.global_size),
        mean=IMAGENET[0],
        deviation=IMAGENET[1],
        normalisation="ImageNet's, as in training",
        fixed_patch_place=fixed,
        draws=_draws(config.model, config.seed),
        trained_on=config.data,
    )


def _from_weights(path: Path) -> Measurable:
    if path.suffix not in _FILES:
        raise InputError(
            f"{path} is no file of weights (allowed: {', '.join(_FILES)}) and no checkpoint"
        )
    weights = read_weights(path)
    try:
        found = load_backbone(weights)
    except (CheckpointError, ConfigError) as error:
        raise InputError(
            f"{path}: {_shortened(str(error))}; if it is of another timm ViT, name that and give "
            f"--weights {path}"
        ) from error
    return Measurable(
        network=found.backbone.requires_grad_(False).eval(),
        name=path.stem,
        weights=f"file {path}",
        is_random=False,
        **_shape(found.backbone.config, found.image_size),
        mean=IMAGENET[0],
        deviation=IMAGENET[1],
        normalisation="ImageNet's: the file does not say",
        notes=_without(found.set_aside),
    )


def _from_hugging_face(path: Path) -> Measurable:
    found = open_hugging_face(path)
    return _of_timm(
        found.backbone,
        path.resolve().name,
        f"folder {path}",
        is_random=False,
        mean=found.mean,
        deviation=found.deviation,
        normalisation="of its preprocessor_config.json"
        if found.says_how
        else "usual for its type: there is no preprocessor_config.json",
        notes=_without(found.set_aside),
    )


def _of_timm(
    backbone: TimmBackbone,
    name: str,
    weights: str,
    *,
    is_random: bool,
    mean: tuple[float, ...] | None = None,
    deviation: tuple[float, ...] | None = None,
    normalisation: str = "of the timm model",
    notes: tuple[str, ...] = (),
) -> Measurable:
    published = getattr(backbone.model, "pretrained_cfg", None) or {}
    rows, columns = backbone.patch_size
    height, width = backbone.image_size
    if rows != columns:
        raise InputError(f"{name}: patches of {rows}×{columns} pixels cannot be measured")
    if height != width:
        notes = (*notes, f"Its own images are {height}×{width} pixels; measured on squares.")
    return Measurable(
        network=backbone,
        name=name,
        weights=weights,
        is_random=is_random,
        depth=len(backbone.model.blocks),
        has_cls=backbone.has_cls,
        registers=backbone.registers_count,
        patch_size=rows,
        image_size=min(height, width),
        mean=_three(mean or published.get("mean", IMAGENET[0])),
        deviation=_three(deviation or published.get("std", IMAGENET[1])),
        normalisation=normalisation,
        notes=notes,
    )


def _shape(model: ModelConfig, image_size: int) -> dict[str, Any]:
    return {
        "depth": model.depth,
        "has_cls": model.cls,
        "registers": model.registers,
        "patch_size": model.patch_size,
        "image_size": image_size,
    }


def _draws(model: ModelConfig, seed: int) -> Draws:
    """Where a wandering [CLS] stands: as in `trainers/evaluation`."""

    def draws(identifiers: Tensor, grid: Grid) -> ForwardDraws:
        never = torch.zeros_like(identifiers)
        source = keyed(seed, "cls position/evaluation", identifiers, never, range(1))
        return ForwardDraws(cls_patch=wandering_cls(source, model, grid))

    return draws


def _shortened(message: str, most: int = 400) -> str:
    """A message that may name every tensor of a model, cut."""
    return message if len(message) <= most else f"{message[:most].rstrip()} …"


def _three(values: tuple[float, ...]) -> Colours:
    red, green, blue = values
    return red, green, blue


def _tag(backbone: TimmBackbone) -> str:
    tag = (getattr(backbone.model, "pretrained_cfg", None) or {}).get("tag")
    return f" ({tag})" if tag else ""


def _without(set_aside: tuple[str, ...], most: int = 4) -> tuple[str, ...]:
    """A sentence on tensors that are not used, if there are any."""
    if not set_aside:
        return ()
    more = f" and {len(set_aside) - most} more" if len(set_aside) > most else ""
    return (f"Set aside, a backbone has no use for them: {', '.join(set_aside[:most])}{more}.",)


def _timm_architecture(folder: Path) -> str | None:
    """The timm name in a folder that timm saved, if it is one."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    named = content.get("architecture") if isinstance(content, dict) else None
    return named if isinstance(named, str) else None
