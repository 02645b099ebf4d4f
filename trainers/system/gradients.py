"""Gradients over workers: sums begun while a backward pass goes on, and differentiable ones."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

_BUCKET = 25 * 2**20
"""Bytes of gradients that are summed over workers together, as in PyTorch's DDP."""


class Buckets:
    """Sums of gradients over workers under way, in an order that hangs on the parameters alone."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters: list[list[nn.Parameter]] = []
        self.started: list[tuple[list[Tensor], Tensor, Any]] = []
        self.next = 0
        self.place: dict[nn.Parameter, int] = {}
        room = 0
        for parameter in parameters:
            if room < parameter.nbytes:
                self.parameters.append([])
                room = _BUCKET
            self.parameters[-1].append(parameter)
            self.place[parameter] = len(self.parameters) - 1
            room -= parameter.nbytes
        self.missing = [len(bucket) for bucket in self.parameters]

    def ready(self, parameter: nn.Parameter) -> None:
        """The gradient of a parameter is done."""
        self.missing[self.place[parameter]] -= 1
        while self.next < len(self.parameters) and not self.missing[self.next]:
            self._start()

    def summed(self) -> Iterable[tuple[list[Tensor], Tensor, Any]]:
        """Gradients, their sum, and the work that has to be waited for, of each bucket."""
        while self.next < len(self.parameters):
            self._start()
        return self.started

    def _start(self) -> None:
        gradients = [p.grad for p in self.parameters[self.next] if p.grad is not None]
        self.next += 1
        if gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            work = torch.distributed.all_reduce(flat, async_op=True)
            self.started.append((gradients, flat, work))


class Summed(torch.autograd.Function):
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


class Gathered(torch.autograd.Function):
    """Rows of all workers forwards; backwards the sum of what all say of this worker's rows."""

    @staticmethod
    def forward(context: Any, rows: Tensor, world: Any) -> Tensor:
        context.world = world
        return world.gather(rows)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return context.world.share(total), None
