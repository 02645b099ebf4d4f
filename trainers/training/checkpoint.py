"""A TrainState on disk, never half-written: one safetensors file, or a folder of workers' parts.

Each is named by its step, and never written again. A folder is what several workers write that
hold a part of the state each (`compute.sharded`). Any number of workers reads either.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from trainers.config import TrainConfig, fingerprint
from trainers.errors import CheckpointError
from trainers.system.atomic import replace_json, replacing_by_name
from trainers.system.world import World
from trainers.training.state import TrainState

if TYPE_CHECKING:
    from trainers.system.sharded_files import ShardedWriter

NOTES_NAME = "notes.json"
"""in a folder of parts"""
_NOTES = "dinolab"
_OF_A_STEP = re.compile(r"checkpoint-(\d+)(?:\.safetensors)?")


class Best(NamedTuple):
    """The best value so far of the metric whose best checkpoint stays."""

    step: int
    value: float


def folder_of(directory: Path, step: int) -> Path:
    """The checkpoint of a step in `directory`, where it is a folder of parts."""
    return directory / f"checkpoint-{step}"


def file_of(directory: Path, step: int) -> Path:
    """The checkpoint of a step in `directory`, where it is a file."""
    return directory / f"checkpoint-{step}.safetensors"


def of_steps(directory: Path) -> dict[Path, int]:
    """Checkpoints in `directory` that are named by their step, and that step."""
    named = {path: _OF_A_STEP.fullmatch(path.name) for path in sorted(directory.glob("*"))}
    return {path: int(found[1]) for path, found in named.items() if found}


def newest(directory: Path) -> Path | None:
    """The checkpoint of the highest step in `directory`, of those that can be read."""
    found = [path for path in of_steps(directory) if is_checkpoint(path)]
    return max(found, key=saved_step, default=None)


def save(state: TrainState, config: TrainConfig, directory: Path, world: World) -> Path | None:
    """Write `state` into `directory`, which is made if need be.

    Every worker calls this; the first one writes, and gets the file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write = file_writer(state, config, world)
    return write(file_of(directory, state.step)) if world.is_first else None


def file_writer(
    state: TrainState, config: TrainConfig, world: World, best: Best | None = None
) -> Callable[[Path], Path]:
    """Copies `state` into host memory; returns what writes the copy to a file and returns that.

    Every worker calls this; what it returns is for the first one.
    """
    whole = {name: world.whole(tensor) for name, tensor in _named(state).items()}
    copies = _in_host_memory(whole) if world.is_first else {}
    # One entry: safetensors writes several in an order that changes from run to run.
    notes = {_NOTES: json.dumps(_notes_of(state, config, best))}

    def write(path: Path) -> Path:
        # Not those above it: a run root that has gone away must not be made again.
        path.parent.mkdir(exist_ok=True)
        with replacing_by_name(path) as written:
            # From the tensors' own memory, and other threads go on meanwhile.
            safetensors.torch.save_file(copies, written, notes)
        return path

    return write


def folder_writer(
    state: TrainState,
    config: TrainConfig,
    directory: Path,
    world: World,
    writer: "ShardedWriter",
    best: Best | None = None,
) -> Callable[[], Path]:
    """Copies this worker's part of `state`; returns what waits until a folder is whole.

    Every worker calls both. The folder comes into being at once, when all parts are written.
    """
    folder, notes = folder_of(directory, state.step), _notes_of(state, config, best)
    unfinished = folder.with_name(f".{folder.name}")
    written = writer.begin(_named(state), unfinished)

    def finish() -> Path:
        written()
        if world.is_first:
            replace_json(unfinished / NOTES_NAME, notes)
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.replace(folder)
        return folder

    return finish


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is what this file writes, by its notes."""
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


def saved_best(path: Path) -> Best | None:
    """The best value up to a checkpoint, if that was asked for.

    Raises CheckpointError when it is corrupt.
    """
    found = _notes(path).get("best")
    return None if found is None else Best(int(found["step"]), float(found["value"]))


def saved_shape(path: Path, name: str) -> tuple[int, ...] | None:
    """The whole shape of the tensor `name` in a checkpoint; None where there is none."""
    if path.is_dir():
        from trainers.system.sharded_files import shapes

        return shapes(path).get(name)
    with safetensors.safe_open(os.fspath(path), framework="pt") as opened:
        if name not in opened.keys():  # noqa: SIM118
            return None
        return tuple(opened.get_slice(name).get_shape())


def refuse_another(path: Path, config: TrainConfig) -> None:
    """Raises CheckpointError when it is corrupt or was saved under another configuration."""
    if saved_fingerprint(path) != fingerprint(config):
        raise CheckpointError(
            f"checkpoint {path} belongs to another configuration; "
            "train with the config.json beside it, or remove it to start anew"
        )


def load(path: Path, config: TrainConfig, world: World, classes: int = 0) -> TrainState:
    """The saved state, on the device of `world`; `classes` of the data count where labels do.

    Raises CheckpointError when it is corrupt or was saved under another configuration.
    """
    refuse_another(path, config)
    notes = _notes(path)
    state = TrainState.fresh(config, world, classes)
    tensors = (_from_folder if path.is_dir() else _from_file)(path, state, world)
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, rest = name.split(".", 1)
        parts.setdefault(group, {})[rest] = tensor
    state.student.load_state_dict(parts["student"])
    state.teacher.load_state_dict(parts["teacher"])
    state.centers = {
        site: center.to(world.device) for site, center in parts.get("centers", {}).items()
    }
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts.get("optimizer", {}).items():
        index, moment = name.split(".", 1)
        moments.setdefault(int(index), {})[moment] = tensor
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    state.step = int(notes["step"])
    state.chain = bytes.fromhex(notes["chain"])
    return state


def backbone(path: Path, config: TrainConfig, network: str) -> dict[str, Tensor]:
    """What a backbone needs of the saved `network`, on the CPU, by name; no more is read.

    Raises CheckpointError as `load`, KeyError or ValueError when tensors are missing or damaged.
    """
    refuse_another(path, config)
    prefix = f"{network}.backbone."
    if path.is_dir():
        from trainers.system import sharded_files

        whole = sharded_files.shapes(path)
        tensors = {name: torch.zeros(whole[name]) for name in whole if name.startswith(prefix)}
        sharded_files.read_into(tensors, path, World.alone(torch.device("cpu")))
    else:
        with safetensors.safe_open(os.fspath(path), framework="pt") as opened:
            names = [name for name in opened.keys() if name.startswith(prefix)]  # noqa: SIM118
            tensors = {name: opened.get_tensor(name) for name in names}
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _named(state: TrainState) -> dict[str, Tensor]:
    """Every tensor of `state` by name, whole or the part that this worker holds."""
    tensors: dict[str, Tensor] = {}
    for role, network in (("student", state.student), ("teacher", state.teacher)):
        tensors |= {f"{role}.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"centers.{site}": center for site, center in state.centers.items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": moment for name, moment in moments.items()}
    return tensors


def _in_host_memory(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, which no later step changes."""
    copies = {}
    on_gpu = [tensor for tensor in tensors.values() if tensor.is_cuda]
    for name, tensor in tensors.items():
        if tensor.is_cuda:
            # Pinned, and one wait for all: as fast as the bus.
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            copies[name] = copy.copy_(tensor.detach(), non_blocking=True)
        else:
            copies[name] = tensor.detach().to(
                "cpu", copy=True, memory_format=torch.contiguous_format
            )
    if on_gpu:
        torch.cuda.current_stream(on_gpu[0].device).synchronize()
    return copies


def _alike(name: str, state: TrainState, own: dict[str, Tensor]) -> Tensor | None:
    """A tensor of `state` that is laid out as the saved one `name` is; None for any layout."""
    if not name.startswith("optimizer."):
        return own.get(name)
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    return parameters[int(name.split(".")[1])]


def _from_file(path: Path, state: TrainState, world: World) -> dict[str, Tensor]:
    """What a file holds, of each tensor the part that this worker is to have."""
    own, tensors = _named(state), safetensors.torch.load_file(path)
    for name, tensor in tensors.items():
        example = _alike(name, state, own)
        if tensor.ndim and example is not None:
            tensors[name] = world.part_like(tensor, example)
    return tensors


def _from_folder(path: Path, state: TrainState, world: World) -> dict[str, Tensor]:
    """The same of a folder; no worker reads more."""
    from trainers.system import sharded_files

    own, tensors = _named(state), {}
    for name, shape in sharded_files.shapes(path).items():
        example = _alike(name, state, own)
        if not shape or example is None:
            tensors[name] = torch.zeros(shape, device=world.device)
        else:
            tensors[name] = torch.zeros_like(example)
    sharded_files.read_into(tensors, path, world)
    return tensors


def _notes_of(state: TrainState, config: TrainConfig, best: Best | None) -> dict[str, Any]:
    notes = {"step": state.step, "chain": state.chain.hex(), "config": fingerprint(config)}
    return notes if best is None else {**notes, "best": best._asdict()}


def _notes(path: Path) -> dict[str, Any]:
    try:
        notes: dict[str, Any]
        if path.is_dir():
            notes = json.loads((path / NOTES_NAME).read_bytes())
        else:
            with safetensors.safe_open(os.fspath(path), framework="pt") as opened:
                notes = json.loads(opened.metadata()[_NOTES])
        bytes.fromhex(notes["chain"])
        if type(notes["step"]) is not int or not isinstance(notes["config"], str):
            raise ValueError("its notes are damaged")
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({error}); remove it to start anew"
        ) from error
    return notes
