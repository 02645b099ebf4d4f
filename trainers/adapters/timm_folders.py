"""ViTs in a folder that timm saved: `config.json` beside `model.safetensors` or a pickle."""

import inspect
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.adapters.hugging_face_models import CONFIG, WEIGHTS
from trainers.adapters.timm_models import TimmBackbone, need_timm, open_timm
from trainers.adapters.weights_file import read_weights
from trainers.errors import InputError, printable


@dataclass(frozen=True, kw_only=True)
class TimmFolder:
    """A ViT from a folder of timm's."""

    backbone: TimmBackbone
    file: Path
    """of its weights"""
    says_how: bool
    """whether the folder says how images are normalised, or the usual of the name was taken"""
    set_aside: tuple[str, ...]
    """names of the tensors that the backbone has no use for"""
    notes: tuple[str, ...]
    """which network of the file was taken, where there was a choice"""


def is_timm(folder: Path) -> bool:
    """Whether `folder` holds what timm saved: the configuration of a model and its weights."""
    return _config(folder) is not None and _weights(folder) is not None


def open_timm_folder(folder: Path) -> TimmFolder:
    """The backbone in `folder`, made as its configuration says, frozen, on the CPU.

    Its `model_args` reach the model alone: what would make timm read other files is left out.
    Raises InputError, one line, for a configuration that cannot be followed; CheckpointError when
    the weights cannot be read or do not fit it.
    """
    need_timm(str(folder))
    import timm

    place, config, file = folder / CONFIG, _config(folder), _weights(folder)
    assert config is not None, folder
    assert file is not None, folder
    own = config.get("pretrained_cfg") or config
    arguments = config.get("model_args") or {}
    if not isinstance(own, dict) or not isinstance(arguments, dict):
        raise InputError(f"{place}: pretrained_cfg and model_args must be objects")
    stated = {
        name: own[name] for name in ("mean", "std", "input_size") if own.get(name) is not None
    }
    for name, values in stated.items():
        least = -math.inf if name == "mean" else 0
        if not _are_three(values, least):
            above = "" if name == "mean" else " above 0"
            raise InputError(
                f"{place}: {name} must be three numbers{above}, got {printable(repr(values))[:60]}"
            )
    own_to_timm = inspect.signature(timm.create_model).parameters
    read = read_weights(file)
    backbone = open_timm(
        config["architecture"],
        read.tensors,
        options={
            **{name: value for name, value in arguments.items() if name not in own_to_timm},
            "pretrained_cfg_overlay": stated,
        },
    )
    return TimmFolder(
        backbone=backbone,
        file=file,
        says_how={"mean", "std"} <= stated.keys(),
        set_aside=tuple(sorted({*backbone.set_aside, *read.set_aside})),
        notes=read.notes,
    )


def _config(folder: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    named = content.get("architecture") if isinstance(content, dict) else None
    return content if isinstance(named, str) else None


def _weights(folder: Path) -> Path | None:
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def _are_three(values: object, least: float) -> bool:
    if not isinstance(values, list) or len(values) != 3:
        return False
    numbers = [value for value in values if type(value) in (int, float) and math.isfinite(value)]
    return len(numbers) == 3 and min(numbers) > least
