"""Rank, size, device and sums over workers; the only file that knows torch.distributed."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from trainers.errors import ConfigError
from trainers.system.allocator import keep_freed_memory


@dataclass(frozen=True, kw_only=True)
class World:
    """The group of workers that trains one model; `World.alone()` is one worker."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def alone(cls) -> "World":
        """One worker, on the GPU when there is one."""
        return cls(rank=0, size=1, device=default_device())

    @classmethod
    def joined(cls, device: torch.device) -> "World":
        """This worker's place in the torch.distributed group that is already set up."""
        return cls(
            rank=torch.distributed.get_rank(),
            size=torch.distributed.get_world_size(),
            device=device,
        )

    @classmethod
    @contextmanager
    def launched(cls) -> "Iterator[World]":
        """This process's place among those that torchrun started, or alone; leaves it at the end.

        GPUs talk through NCCL, CPUs through gloo.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            yield cls.alone()
            return
        device = default_device()
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        try:
            yield cls.joined(device)
        finally:
            torch.distributed.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this worker is the one that writes."""
        return self.rank == 0

    def autocast(self, precision: str) -> torch.autocast:
        """Where networks compute in bfloat16 if `precision` is `bf16`."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")

    def share(self, batch: Tensor) -> Tensor:
        """This worker's consecutive rows of a global batch [B, ...]; B must divide by size."""
        if len(batch) % self.size:
            raise ConfigError(
                f"batch_size {len(batch)} does not divide by {self.size} workers; "
                f"choose a multiple of {self.size}"
            )
        rows = len(batch) // self.size
        return batch[self.rank * rows : (self.rank + 1) * rows]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum of `tensor` over workers, in place; the tensor itself when alone."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def sum_with_gradient(self, tensor: Tensor) -> Tensor:
        """Sum of `tensor` over workers; the gradient is summed over them too."""
        if self.size == 1:
            return tensor
        return _Sum.apply(tensor)

    def gather_with_gradient(self, rows: Tensor) -> Tensor:
        """Rows [B / size, ...] of all workers in rank order, [B, ...]; gradients find their way."""
        if self.size == 1:
            return rows
        return _Gather.apply(rows, self)

    def largest(self, tensor: Tensor) -> Tensor:
        """Largest values over workers, in place; the tensor itself when alone."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
        return tensor

    def gather(self, rows: Tensor) -> Tensor:
        """Rows [B / size, ...] of all workers in rank order, [B, ...]."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def shard(self, units: Iterable[nn.Module]) -> None:
        """Leave each worker a part of every parameter of `units` (FSDP2), whole only when used.

        Outer modules must come after those inside them. Nothing happens when alone.
        """
        if self.size > 1:
            mesh = init_device_mesh(self.device.type, (self.size,))
            for unit in units:
                # By default the outermost stays whole after its forward pass: a teacher's has
                # no backward pass to take it apart again.
                fully_shard(unit, mesh=mesh, reshard_after_forward=True)

    def whole(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor of which workers hold parts; every worker must ask."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def part_like(self, tensor: Tensor, example: Tensor) -> Tensor:
        """This worker's part of a whole `tensor`, laid out as `example` is."""
        if isinstance(example, DTensor):
            return distribute_tensor(tensor, example.device_mesh, example.placements)
        return tensor

    def wait(self) -> None:
        """Return once every worker has come here."""
        if self.size > 1:
            torch.distributed.barrier()

    def average_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Replace each gradient by its mean over workers, in one all-reduce.

        Those of parameters that workers share are means already.
        """
        gradients = [
            p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)
        ]
        if self.size == 1 or not gradients:
            return
        flat = self.sum(torch.cat([g.flatten() for g in gradients])) / self.size
        for gradient, mean in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(mean.view_as(gradient))


class _Sum(torch.autograd.Function):
    """A sum over workers, forwards and backwards."""

    @staticmethod
    def forward(_context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    """Rows of all workers forwards; backwards the sum of what all say of this worker's rows."""

    @staticmethod
    def forward(context: Any, rows: Tensor, world: World) -> Tensor:
        context.world = world
        return world.gather(rows)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return context.world.share(total), None


def here(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this worker holds of each tensor, sharing its memory."""
    return [one.to_local() if isinstance(one, DTensor) else one for one in tensors]


def is_shared(tensor: Tensor) -> bool:
    """Whether workers hold a part each of `tensor`."""
    return isinstance(tensor, DTensor)


def make_reproducible(threads: int) -> None:
    """Set this process up to train: equal runs give equal bits, with that many CPU threads.

    The number is the caller's, not the machine's: sums over threads depend on how many there are.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    keep_freed_memory()
    torch.set_num_threads(threads)
    # Only warned of: cumulative sums in evaluation have no deterministic form on CUDA.
    torch.use_deterministic_algorithms(True, warn_only=True)


def default_device() -> torch.device:
    """The first GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
