"""Rank, size, device and sums over workers; the only file that knows torch.distributed."""

import os
from dataclasses import dataclass

import torch
import torch.distributed
import torch.distributed.nn.functional
from torch import Tensor

from trainers.errors import ConfigError


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
        return torch.distributed.nn.functional.all_reduce(tensor.contiguous())

    def gather_with_gradient(self, rows: Tensor) -> Tensor:
        """Rows [B / size, ...] of all workers in rank order, [B, ...]; gradients find their way."""
        if self.size == 1:
            return rows
        return torch.cat(torch.distributed.nn.functional.all_gather(rows.contiguous()))

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

    def wait(self) -> None:
        """Return once every worker has come here."""
        if self.size > 1:
            torch.distributed.barrier()

    def average_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Replace each gradient by its mean over workers, in one all-reduce."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.sum(torch.cat([g.flatten() for g in gradients])) / self.size
        for gradient, mean in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(mean.view_as(gradient))


def make_reproducible(threads: int) -> None:
    """Set this process up so that equal runs give equal bits, with that many CPU threads.

    The number is the caller's, not the machine's: sums over threads depend on how many there are.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    # Only warned of: cumulative sums in evaluation have no deterministic form on CUDA.
    torch.use_deterministic_algorithms(True, warn_only=True)


def default_device() -> torch.device:
    """The first GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
