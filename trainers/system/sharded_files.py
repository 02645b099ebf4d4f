"""Tensors of which workers hold parts, in a folder that each worker writes its own parts into."""

import contextlib
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.tensor import DTensor

from trainers.errors import first_line
from trainers.system.world import PATIENCE, World

_NAMED = {
    "pathlib": {"PosixPath", "PurePosixPath"},
    "torch": {"Size"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    },
    "torch.serialization": {"_get_layout"},
}  # fmt: skip
"""By module, what a list of tensors is made of."""


class ShardedWriter:
    """Writes parts in the background; every worker makes one, and calls it alike."""

    def __init__(self) -> None:
        # Its own group: its messages must not meet those of the steps that go on meanwhile.
        self.group = cast(
            "torch.distributed.ProcessGroup",
            torch.distributed.new_group(backend="gloo", timeout=PATIENCE),
        )

    def begin(self, tensors: Mapping[str, Tensor], folder: Path) -> Callable[[], None]:
        """Copy what this worker holds of `tensors`; returns what waits until all have written.

        What waits raises an error, on every worker, when one of them could not write.
        """
        state = {name: _apart(tensor) for name, tensor in tensors.items()}
        writer = FileSystemWriter(folder, sync_files=True)
        begun = async_save(state, storage_writer=writer, process_group=self.group)

        def wait() -> None:
            with _its_cause():
                cast("Future[object]", begun).result()

        return wait


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Of each tensor in `folder`, its whole shape. Raises ValueError when that cannot be read."""
    try:
        _refuse_code(folder)
        described = FileSystemReader(folder).read_metadata().state_dict_metadata
    except Exception as error:  # a torn pickle raises anything
        raise ValueError(f"the list of its tensors cannot be read: {first_line(error)}") from error
    return {
        name: tuple(one.size)
        for name, one in described.items()
        if isinstance(one, TensorStorageMetadata)
    }


def read_into(tensors: Mapping[str, Tensor], folder: Path, world: World) -> None:
    """Fill `tensors`, whole ones or parts, with those of the same names in `folder`.

    Raises ValueError when one cannot be read.
    """
    try:
        _refuse_code(folder)
        with warnings.catch_warnings(), _its_cause():
            # Of one process, that there is only one.
            warnings.simplefilter("ignore", UserWarning)
            load(dict(tensors), storage_reader=FileSystemReader(folder), no_dist=world.size == 1)
    except Exception as error:
        raise ValueError(f"a tensor cannot be read: {first_line(error)}") from error


def _refuse_code(folder: Path) -> None:
    """Raises UnpicklingError where the list of tensors, which is a pickle, names other code."""
    with (folder / ".metadata").open("rb") as file:
        _OnlyLists(file).load()


class _OnlyLists(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_type = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_type or name in _NAMED.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no such list does")


@contextlib.contextmanager
def _its_cause() -> Iterator[None]:
    """Raise what a worker raised, not the exception that tells every worker's stack."""
    try:
        yield
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from error


def _apart(tensor: Tensor) -> Tensor:
    """`tensor` with memory of its own where it lies on the CPU: what is written shares that."""
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        return tensor
    if not isinstance(tensor, DTensor):
        return tensor.clone()
    return DTensor.from_local(
        tensor.to_local().clone(),
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )
