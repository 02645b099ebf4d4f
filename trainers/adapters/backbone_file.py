"""A backbone of ours in one file of its own: tensors under our names, and what they are.

`dinolab export --to safetensors` writes it; `open_measurable` and `model.weights` read it. Unlike
timm's and Hugging Face's folders it holds every kind of backbone that can be trained here.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from pydantic import ValidationError
from torch import Tensor

from trainers.config import ModelConfig, explain
from trainers.errors import CheckpointError, first_line, printable
from trainers.model.vit import VisionTransformer

_NOTES = "dinolab_backbone"
"""The one entry of the file's metadata, a JSON object."""


@dataclass(frozen=True, kw_only=True)
class SavedBackbone:
    """A backbone from such a file, frozen, on the CPU."""

    backbone: VisionTransformer
    image_size: int
    """side of the images whose grid its positions belong to, pixels"""
    seed: int
    """of its run, which keys where a wandering [CLS] stands"""
    fixed_patch_place: tuple[float, float] | None
    """the patch that carried a loss, if one did"""
    origin: str
    """which network of which run, in words"""


def content_of(saved: SavedBackbone) -> bytes:
    """The bytes of the file: the same for the same backbone."""
    tensors = {name: t.contiguous() for name, t in saved.backbone.state_dict().items()}
    notes = {
        # Where its own weights came from is a path on the machine that trained it.
        "model": {**saved.backbone.config.model_dump(mode="json"), "weights": ""},
        "image_size": saved.image_size,
        "seed": saved.seed,
        "fixed_patch_place": saved.fixed_patch_place,
        "origin": saved.origin,
    }
    return safetensors.torch.save(tensors, {_NOTES: json.dumps(notes)})


def is_backbone_file(path: Path) -> bool:
    """Whether `path` is a file that `content_of` made, by its metadata."""
    try:
        return _NOTES in _metadata(path)
    except (OSError, safetensors.SafetensorError):
        return False


def read_backbone_file(path: Path) -> SavedBackbone:
    """The backbone in the file. Raises CheckpointError, one line, when it is damaged."""
    try:
        notes = json.loads(_metadata(path)[_NOTES])
        model = ModelConfig.model_validate_json(json.dumps(notes["model"]))
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
        backbone = VisionTransformer(model, notes["image_size"], masks="mask" in tensors)
        backbone.load_state_dict(tensors)
        place = notes["fixed_patch_place"]
        return SavedBackbone(
            backbone=backbone.requires_grad_(False).eval(),
            image_size=notes["image_size"],
            seed=notes["seed"],
            fixed_patch_place=None if place is None else (place[0], place[1]),
            origin=notes["origin"],
        )
    except ValidationError as error:
        raise CheckpointError(
            f"backbone {path} was saved by another version of dinolab: {'; '.join(explain(error))}"
        ) from error
    except (
        OSError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        safetensors.SafetensorError,
    ) as error:
        raise CheckpointError(
            f"backbone {path} is damaged: {printable(first_line(error))}"
        ) from error


def _metadata(path: Path) -> Mapping[str, Any]:
    with safetensors.safe_open(os.fspath(path), framework="pt") as opened:
        return opened.metadata() or {}
