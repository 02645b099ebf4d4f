"""Saving and loading a TrainState, as one safetensors file that is never half-written."""

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from trainers.config import TrainConfig, fingerprint
from trainers.errors import CheckpointError
from trainers.system.atomic import replace
from trainers.system.world import World
from trainers.training.state import TrainState

FILE_NAME = "state.safetensors"
_NOTES = "dinolab"


def save(state: TrainState, config: TrainConfig, directory: Path, world: World) -> Path | None:
    """Write `state` into `directory`, replacing an earlier one at once.

    Every worker calls this; the first one writes, and gets the file.
    """
    tensors: dict[str, torch.Tensor] = {}
    for role, network in state.whole_networks(world).items():
        tensors |= {f"{role}.{name}": tensor for name, tensor in network.items()}
    tensors |= {f"centers.{site}": center for site, center in state.centers.items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": world.whole(m) for name, m in moments.items()}
    if not world.is_first:
        return None
    notes = {"step": state.step, "chain": state.chain.hex(), "config": fingerprint(config)}
    content = safetensors.torch.save(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        # One entry: safetensors writes several in an order that changes from run to run.
        {_NOTES: json.dumps(notes)},
    )
    return replace(directory / FILE_NAME, content)


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is a file that `save` wrote, by its notes."""
    try:
        _notes(path)
    except CheckpointError:
        return False
    return True


def saved_step(path: Path) -> int:
    """The step at which a checkpoint was taken.

    Raises CheckpointError when it is corrupt.
    """
    return int(_notes(path)["step"])


def saved_fingerprint(path: Path) -> str:
    """The fingerprint of the configuration that a checkpoint belongs to.

    Raises CheckpointError when it is corrupt.
    """
    return str(_notes(path)["config"])


def refuse_another(path: Path, config: TrainConfig) -> None:
    """Raises CheckpointError when the file is corrupt or was saved under another configuration."""
    if saved_fingerprint(path) != fingerprint(config):
        raise CheckpointError(
            f"checkpoint {path} belongs to another configuration; "
            "train with the config.json beside it, or remove it to start anew"
        )


def load(path: Path, config: TrainConfig, world: World, classes: int = 0) -> TrainState:
    """The saved state, on the device of `world`; `classes` of the data count where labels do.

    Raises CheckpointError when the file is corrupt or was saved under another configuration.
    """
    refuse_another(path, config)
    notes = _notes(path)
    tensors = safetensors.torch.load_file(path)
    state = TrainState.fresh(config, world, classes)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        group, rest = name.split(".", 1)
        parts.setdefault(group, {})[rest] = tensor
    for role, network in (("student", state.student), ("teacher", state.teacher)):
        own = network.state_dict()
        network.load_state_dict(
            {name: world.part_like(whole, own[name]) for name, whole in parts[role].items()}
        )
    state.centers = {
        site: center.to(world.device) for site, center in parts.get("centers", {}).items()
    }
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in parts.get("optimizer", {}).items():
        index, moment = name.split(".", 1)
        if tensor.ndim:
            tensor = world.part_like(tensor, parameters[int(index)])
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
