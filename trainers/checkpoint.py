"""Saving and loading a TrainState, as one safetensors file that is never half-written."""

import os
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from trainers.atomic import replace
from trainers.config import TrainConfig, fingerprint
from trainers.errors import CheckpointError
from trainers.state import TrainState

FILE_NAME = "state.safetensors"


def save(state: TrainState, config: TrainConfig, directory: Path) -> Path:
    """Write `state` into `directory`, replacing an earlier one at once; returns the file."""
    tensors = {f"student.{n}": t for n, t in state.student.state_dict().items()}
    tensors |= {f"teacher.{n}": t for n, t in state.teacher.state_dict().items()}
    tensors |= {f"centers.{n}": t for n, t in state.centers.items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": moment for name, moment in moments.items()}
    metadata = {
        "step": str(state.step),
        "chain": state.chain.hex(),
        "config": fingerprint(config),
    }
    content = safetensors.torch.save(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata
    )
    return replace(directory / FILE_NAME, content)


def saved_step(path: Path) -> int:
    """The step at which a checkpoint was taken.

    Raises CheckpointError when it is corrupt.
    """
    return int(_metadata(path)["step"])


def load(path: Path, config: TrainConfig, device: torch.device) -> TrainState:
    """The saved state, on `device`.

    Raises CheckpointError when the file is corrupt or was saved under another configuration.
    """
    metadata = _metadata(path)
    if metadata["config"] != fingerprint(config):
        raise CheckpointError(
            f"checkpoint {path} belongs to another configuration; "
            "train with the config.json beside it, or remove it to start anew"
        )
    tensors = safetensors.torch.load_file(path, device=str(device))
    state = TrainState.fresh(config, device)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        group, rest = name.split(".", 1)
        parts.setdefault(group, {})[rest] = tensor
    state.student.load_state_dict(parts["student"])
    state.teacher.load_state_dict(parts["teacher"])
    state.centers = parts["centers"]
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in parts.get("optimizer", {}).items():
        index, moment = name.split(".", 1)
        moments.setdefault(int(index), {})[moment] = tensor
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    state.step = int(metadata["step"])
    state.chain = bytes.fromhex(metadata["chain"])
    return state


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safetensors.safe_open(os.fspath(path), framework="pt") as opened:
            metadata: dict[str, str] = opened.metadata()
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({error}); remove it to start anew"
        ) from error
    return metadata
