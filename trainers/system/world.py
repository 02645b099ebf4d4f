"""Rank, size, device and sums over workers.

Workers meet in two groups. One sums tensors: all come to it within a step, so that whoever is
missing for `group_timeout` hangs, and the run ends. The other one, on the CPU, is for waiting and
for being told: it has `PATIENCE` for what one does alone or at its own pace, such as indexing
images or writing a checkpoint. A worker that dies is noticed by both at once.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from trainers.errors import ConfigError, LostWorkerError
from trainers.system.allocator import keep_freed_memory
from trainers.system.gradients import Buckets, Gathered, Summed
from trainers.system.numbers import allow_tf32
from trainers.system.seconds import seconds_given

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

GROUP_TIMEOUT, GROUP_TIMEOUT_S = "DINOLAB_GROUP_TIMEOUT_S", 1800.0
"""Environment variable and default: seconds that a worker may be late for a sum over workers.

Workers compile at different speeds, which takes minutes; nothing else keeps them apart that long.
"""

PATIENCE = timedelta(days=1)
"""How long workers wait for one that does something alone."""

_MARKS_OF_LOSS = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
"""What gloo and NCCL say of it."""

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class World:
    """The group of workers that trains one model; `World.alone()` is one worker."""

    rank: int
    size: int
    device: torch.device
    patient: Any = None
    """the group for waiting and for being told; None when alone"""

    @classmethod
    def alone(cls, device: torch.device | None = None) -> "World":
        """One worker, on `device`, or on the GPU when there is one."""
        return cls(rank=0, size=1, device=device or default_device())

    @classmethod
    def joined(cls, device: torch.device) -> "World":
        """This worker's place in the torch.distributed group that is already set up.

        Every worker must join.
        """
        return cls(
            rank=torch.distributed.get_rank(),
            size=torch.distributed.get_world_size(),
            device=device,
            patient=torch.distributed.new_group(backend="gloo", timeout=PATIENCE),
        )

    @classmethod
    @contextmanager
    def launched(cls, device: torch.device | None = None) -> "Iterator[World]":
        """This process's place among those that torchrun started, or alone; leaves it at the end.

        GPUs talk through NCCL, CPUs through gloo. Raises ConfigError when this machine has fewer
        GPUs than workers.
        """
        device = device or default_device()
        if launched_workers() == 1:
            yield cls.alone(device)
            return
        if device.type == "cuda":
            place = int(os.environ["LOCAL_RANK"])
            workers = max(place + 1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
            if workers > (found := torch.cuda.device_count()):
                raise ConfigError(
                    f"{workers} workers on this machine, but {found} GPUs: start {found} "
                    f"(--nproc-per-node {found}), or give --device cpu"
                )
            device = torch.device("cuda", place)
            torch.cuda.set_device(device)
        torch.distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", timeout=group_timeout()
        )
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

    def receive(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Start to bring a tensor to the host; the call of what is returned waits for it."""
        if self.device.type != "cuda":
            return tensor.cpu
        here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        here.copy_(tensor, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def arrived() -> Tensor:
            copied.synchronize()
            return here

        return arrived

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
        return Summed.apply(tensor)

    def gather_with_gradient(self, rows: Tensor) -> Tensor:
        """Rows [B / size, ...] of all workers in rank order, [B, ...]; gradients find their way."""
        if self.size == 1:
            return rows
        return Gathered.apply(rows, self)

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

    def of_each(self, value: Value) -> list[Value]:
        """The `value` of each worker in rank order, anything that can be pickled."""
        if self.size == 1:
            return [value]
        values = [value] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def in_turn(self, mine: Sequence[Tensor]) -> Sequence[Tensor]:
        """All the tensors that workers made in turn: the first worker the first, and so on.

        `mine` are those of this worker, in order. They may differ in shape.
        """
        if self.size == 1:
            return mine
        forms = self.of_each([(part.shape, part.dtype) for part in mine])
        every = []
        for place in range(sum(map(len, forms))):
            turn, owner = divmod(place, self.size)
            shape, dtype = forms[owner][turn]
            part = torch.empty(shape, dtype=dtype, device=self.device)
            if owner == self.rank:
                part.copy_(mine[turn])
            torch.distributed.broadcast(part, src=owner)
            every.append(part)
        return every

    def shard(self, units: Iterable[nn.Module], precision: str = "fp32") -> None:
        """Leave each worker a part of every matrix of `units` (FSDP2), whole only when used.

        What has one axis stays whole on every worker, in float32: it is small, and autocast does
        not round norms. Matrices are sent in bfloat16 if `precision` is `bf16`, which must be how
        autocast uses all of them; their gradients are summed in float32. Outer modules must come
        after those inside them. Nothing happens when alone.
        """
        if self.size > 1:
            # Imported here: it takes a second, and hardly any run shares its matrices.
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

            mesh = init_device_mesh(self.device.type, (self.size,))
            policy = MixedPrecisionPolicy(cast_forward_inputs=False)
            if precision == "bf16":
                policy = MixedPrecisionPolicy(
                    param_dtype=torch.bfloat16,
                    reduce_dtype=torch.float32,
                    cast_forward_inputs=False,
                )
            for unit in units:
                # By default the outermost stays whole after its forward pass: a teacher's has
                # no backward pass to take it apart again.
                fully_shard(
                    unit,
                    mesh=mesh,
                    reshard_after_forward=True,
                    mp_policy=policy,
                    ignored_params={p for p in unit.parameters() if p.ndim <= 1},
                )

    def whole(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor of which workers hold parts; every worker must ask."""
        return tensor.full_tensor() if is_shared(tensor) else tensor

    def part_like(self, tensor: Tensor, example: Tensor) -> Tensor:
        """This worker's part of a whole `tensor`, laid out as `example` is."""
        if is_shared(example):
            from torch.distributed.tensor import distribute_tensor

            return distribute_tensor(tensor, example.device_mesh, example.placements)
        return tensor

    def wait(self) -> None:
        """Return once every worker has come here, however long that takes.

        Raises LostWorkerError when one has ended instead.
        """
        if self.size > 1:
            with lost_workers_named(("",)):
                torch.distributed.barrier(group=self.patient)

    def told(self, value: Value) -> Value:
        """The first worker's `value`, small and picklable, on every worker; waits as `wait` does.

        What all workers must decide alike is decided by one: what each finds on disk may differ.
        """
        if self.size == 1:
            return value
        values = [value]
        with lost_workers_named(("",)):
            torch.distributed.broadcast_object_list(values, src=0, group=self.patient)
        return values[0]

    @contextmanager
    def averaging(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
        """Around a backward pass: gradients become their means over workers, as they are done.

        Those of parameters that workers share are means already. Gradients of one bucket after the
        other are summed while the pass goes on, last parameters first, alike on every worker.
        """
        plain = [p for p in parameters if p.requires_grad and not is_shared(p)]
        if self.size == 1 or not plain:
            yield
            return
        buckets = Buckets(plain[::-1])
        hooks = [p.register_post_accumulate_grad_hook(buckets.ready) for p in plain]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        for gradients, total, work in buckets.summed():
            work.wait()
            total /= self.size
            means = total.split([gradient.numel() for gradient in gradients])
            views = [mean.view_as(one) for one, mean in zip(gradients, means, strict=True)]
            torch._foreach_copy_(gradients, views)


@contextmanager
def lost_workers_named(marks: tuple[str, ...] = _MARKS_OF_LOSS) -> Iterator[None]:
    """Raises LostWorkerError where a sum over workers ends because one of them has."""
    try:
        yield
    except RuntimeError as error:
        if not any(mark in str(error) for mark in marks):
            raise
        raise LostWorkerError(
            "another worker of this run has ended, and says itself why; the same command goes on "
            "from the last checkpoint"
        ) from error


def launched_workers() -> int:
    """How many workers torchrun started for this run, over all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def group_timeout() -> timedelta:
    """How long a worker may be late for a sum over workers. Raises ConfigError."""
    most = PATIENCE.total_seconds()
    return timedelta(seconds=seconds_given(GROUP_TIMEOUT, GROUP_TIMEOUT_S, most))


def here(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this worker holds of each tensor, sharing its memory."""
    return [one.to_local() if is_shared(one) else one for one in tensors]


def is_shared(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether workers hold a part each of `tensor`."""
    # No tensor is of a class that nobody has loaded, which would take a second.
    loaded = sys.modules.get("torch.distributed.tensor")
    return loaded is not None and isinstance(tensor, loaded.DTensor)


def make_reproducible(threads: int) -> None:
    """Set this process up to train: equal runs give equal bits, with that many CPU threads.

    The number is the caller's, not the machine's: sums over threads depend on how many there are.
    An operation that gives other bits each time raises RuntimeError, except inside `measuring`.
    Products of float32 are float32's. Call it before the first work on a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    keep_freed_memory()
    torch.set_num_threads(threads)
    # Not only warned of: attention's backward pass would stay as it is.
    # What sets it else loads the compiler, which takes seconds; see `trainers.system.compiling`.
    torch.set_deterministic_debug_mode("error")
    # Nothing reads memory that nobody wrote, and filling it costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    allow_tf32(False)


def chosen_device(name: str) -> torch.device:
    """The device of that name: `auto`, `cpu` or `cuda`. Raises ConfigError for a GPU not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: PyTorch finds no GPU here; use cpu or auto")
    return default_device() if name == "auto" else torch.device(name)


def default_device() -> torch.device:
    """The first GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
