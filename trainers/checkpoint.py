"""Saving and loading a TrainState, as one safetensors file that is never half-written."""

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from trainers.atomic import replace
from trainers.config import TrainConfig, fingerprint
from trainers.errors import CheckpointError
from trainers.state import TrainState

FILE_NAME = "state.safetensors"
_NOTES = "dinolab"


def save(state: TrainState, config: TrainConfig, directory: Path) -> Path:
    """Write `state` into `directory`, replacing an earlier one at once; returns the file."""
    tensors = {f"student.{n}": t for n, t in state.student.state_dict().items()}
    tensors |= {f"teacher.{n}": t for n, t in state.teacher.state_dict().items()}
    tensors |= {f"centers.{n}": t for n, t in state.centers.items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": moment for name, moment in moments.items()}
    notes = {"step": state.step, "chain": state.chain.hex(), "config": fingerprint(config)}
    content = safetensors.torch.save(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        # One entry: safetensors writes several in an order that changes from run to run.
        {_NOTES: json.dumps(notes)},
    )
    return replace(directory / FILE_NAME, content)


def saved_step(path: Path) -> int:
    """The step at which a checkpoint was taken.

    Raises CheckpointError when it is corrupt.
    """
    return int(_notes(path)["step"])


def load(path: Path, config: TrainConfig, device: torch.device, classes: int = 0) -> TrainState:
    """The saved state, on `device`; `classes` of the data count where labels are learned.

    Raises CheckpointError when the file is corrupt or was saved under another configuration.
    """
    notes = _notes(path)
    if notes["config"] != fingerprint(config):
        raise CheckpointError(
            f"checkpoint {path} belongs to another configuration; "
            "train with the config.json beside it, or remove it to start anew"
        )
    tensors = safetensors.torch.load_file(path, device=str(device))
    state = TrainState.fresh(config, device, classes)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        group, rest = name.split(".", 1)
        parts.setdefault(group, {})[rest] = tensor
    state.student.load_state_dict(parts["student"])
    state.teacher.load_state_dict(parts["teacher"])
    state.centers = parts.get("centers", {})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in parts.get("optimizer", {}).items():
        index, moment = name.split(".", 1)
        moments.setdefault(int(index), {})[moment] = tensor
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    state.step = int(notes["step"])
    state.chain = bytes.fromhex(notes["chain"])
    return state


def _notes(path: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(os.fspath(path), framework="pt") as opened:
            notes: dict[str, Any] = json.loads(opened.metadata()[_NOTES])
    except (OSError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({error}); remove it to start anew"
        ) from error
    return notes
