"""Weights that a backbone starts from instead of by chance: do they fit, and what becomes of them.

Where they come from is the caller's to know (`trainers/adapters/starting.py`): here they are
tensors under our names.
"""

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainers.config import TrainConfig
from trainers.config.idle import idle
from trainers.config.pin import source_of
from trainers.errors import ConfigError
from trainers.grid import Grid
from trainers.model.positions import interpolation
from trainers.model.vit import VisionTransformer

_FREE = ("weights", "drop_path", "initial_deviation", "interpolation_offset", "norm_epsilon")
"""Knobs of the model that say nothing, or next to nothing, of what its weights mean."""
_SCALE = re.compile(r"\.layer_scale([12])$")
_SCALED = {"1": "attention.projection", "2": "contract"}
"""What factors of LayerScale multiply."""


@dataclass(frozen=True, kw_only=True)
class Starting:
    """The weights of a backbone, and what is known of it."""

    tensors: Mapping[str, Tensor]
    """under our names, float32, on the CPU"""
    knobs: Mapping[str, Any]
    """of the model, as far as they are known: shapes do not tell the number of heads"""
    grid: Grid
    """of patches, which learned positions belong to"""
    origin: str
    """in words"""
    notes: tuple[str, ...] = ()
    """what else a reader must know, a sentence each"""

    @functools.cached_property
    def digest(self) -> str:
        """As `digest_of_tensors` gives it."""
        return digest_of_tensors(self.tensors)


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal SHA-256 of names, shapes and values."""
    content = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name} {list(tensor.shape)}\n".encode())
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def notes_of(starting: Starting, config: TrainConfig) -> tuple[str, ...]:
    """What becomes of the weights in a run of `config`, a sentence each.

    Raises ConfigError, one line, when they do not fit its model.
    """
    _refuse_another_shape(starting, config)
    side = config.augment.global_size // config.model.patch_size
    notes = list(starting.notes)
    if "position" in starting.tensors and (side, side) != starting.grid:
        rows, columns = starting.grid
        notes.append(f"Positions are interpolated from {rows}×{columns} to {side}×{side} patches.")
    if config.model.registers and not starting.knobs["registers"]:
        notes.append(f"The {config.model.registers} registers start by chance: it has none.")
    if starting.knobs["layer_scale"] and not config.model.layer_scale:
        notes.append("Factors of LayerScale are multiplied into the matrices before them.")
    return tuple(notes)


def take(starting: Starting, backbone: VisionTransformer, config: TrainConfig) -> None:
    """Give `backbone` the weights; what they lack (registers, a mask) stays as it is.

    Raises ConfigError, one line, when they do not fit.
    """
    _refuse_another_shape(starting, config)
    own = backbone.state_dict()
    taken = {name: tensor for name, tensor in starting.tensors.items() if name != "mask"}
    if "mask" in own and "mask" in starting.tensors:
        taken["mask"] = starting.tensors["mask"]
    if "cls_position" in own and "cls_position" not in taken:
        taken["cls_position"] = torch.zeros(own["cls_position"].shape)
    elif "cls_position" in taken and "cls_position" not in own:
        taken["cls"] = taken["cls"] + taken.pop("cls_position")
    if "position" in taken and starting.grid != backbone.grid:
        resample = interpolation(starting.grid, backbone.grid, 0.0, torch.device("cpu"))
        taken["position"] = resample @ taken["position"]
    _settle_layer_scale(taken, own)
    try:
        left = backbone.load_state_dict(taken, strict=False)
    except RuntimeError as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise ConfigError(f"{_said(config)} does not fit: {reason}") from error
    lacking = set(left.missing_keys) - {"mask", "registers"}
    if lacking or left.unexpected_keys:
        names = ", ".join(sorted({*lacking, *left.unexpected_keys}))
        raise ConfigError(f"{_said(config)} does not fit the model in {names}")


def _settle_layer_scale(taken: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """The same function with factors of LayerScale where `own` has them, and only there."""
    for name in [name for name in taken if name not in own and _SCALE.search(name)]:
        factors, (block, number) = taken.pop(name), _SCALE.split(name)[:2]
        scaled = f"{block}.{_SCALED[number]}"
        taken[f"{scaled}.weight"] = factors[:, None] * taken[f"{scaled}.weight"]
        taken[f"{scaled}.bias"] = factors * taken[f"{scaled}.bias"]
    for name in own:
        if name not in taken and _SCALE.search(name):
            taken[name] = torch.ones(own[name].shape)


def _refuse_another_shape(starting: Starting, config: TrainConfig) -> None:
    different = dict(_different(starting, config))
    if different:
        theirs = ", ".join(f"model.{name} {value!r}" for name, value in different.items())
        ours = ", ".join(repr(getattr(config.model, name)) for name in different)
        raise ConfigError(
            f"{_said(config)} has {theirs}, and this run {ours}: set the knobs as the weights "
            "have them, or give others"
        )


def _different(starting: Starting, config: TrainConfig) -> Iterator[tuple[str, Any]]:
    """Knobs in which the weights are of another model, with their values there."""
    for name, value in starting.knobs.items():
        own = getattr(config.model, name)
        if name in _FREE or value == own or idle(f"model.{name}", config):
            continue
        if name == "registers" and not value:
            continue
        # A learned position of [CLS] can be added to [CLS] itself, or be 0.
        if name == "cls_position" and {value, own} == {"learned", "none"}:
            continue
        # Factors are taken as they are, whatever they began with; or are multiplied in; or are 1.
        if name == "layer_scale":
            continue
        yield name, value


def _said(config: TrainConfig) -> str:
    return f"model.weights {source_of(config.model.weights)}"
