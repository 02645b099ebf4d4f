"""A pretend accelerator: as strict about devices as CUDA, and a CPU is all it needs.

`DEVICE` is a device to PyTorch, whose tensors go through modules, autograd and optimisers as those
of any accelerator. Their numbers lie on the CPU and are computed there, so results are those of the
CPU. What differs: an operation that mixes devices raises, by CUDA's rules, and what costs time on a
device is counted: waits of the host by the line that makes it wait, operators that are no views by
their names, and bytes that go to the device and come from it.

Use it inside :func:`pretending`. Whoever imports this module registers the device in the process.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

aten = torch.ops.aten


class _Backend(_DummyBackendModule):
    """What PyTorch asks of a device as a whole."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend("pretend", backend_module=_Backend())
DEVICE = torch.device("pretend", 0)

_CPU = torch.device("cpu")
_HOME = f"{Path(__file__).parent.parent.parent}/"

_WAITS = {
    aten._linalg_check_errors, aten._local_scalar_dense, aten._unique2, aten.bincount, aten.equal,
    aten.is_nonzero, aten.masked_select, aten.nonzero, aten.unique_consecutive, aten.unique_dim,
}  # fmt: skip
"""Operators with a value, or a size that hangs on values, which the host must know to go on."""

_INDEXES = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}

_FREE = {
    aten._reshape_alias, aten._unsafe_view, aten.detach, aten.empty_like, aten.lift_fresh,
    aten.new_empty, aten.new_empty_strided,
}  # fmt: skip
"""Operators that are no views by their schemas, but leave the device nothing to do."""

_FACTORIES = (
    "arange", "arange.start", "arange.start_step", "empty.memory_format", "empty_strided", "eye",
    "full", "linspace", "ones", "scalar_tensor", "zeros",
)  # fmt: skip
"""Operators that make a tensor of no other; one that is not here raises on the device."""


@dataclass
class Counts:
    """What was asked of the device."""

    waits: Counter[str] = field(default_factory=Counter)
    """times at which the host waits for it, by `file:line` of this repository"""
    launches: Counter[str] = field(default_factory=Counter)
    """operators that are no views, by name; some over lists once for each tensor"""
    moved: Counter[str] = field(default_factory=Counter)
    """bytes `to` the device and `from` it"""


_counters: list[Counts] = []


@contextmanager
def pretending() -> Iterator[Counts]:
    """What is asked of the device inside."""
    counts = Counts()
    _counters.append(counts)
    try:
        # PyTorch starts its threads for backward passes once, maybe before the device was there.
        with torch.autograd.set_multithreading_enabled(False):
            yield counts
    finally:
        # By identity: another may have counted the same.
        _counters[:] = [one for one in _counters if one is not counts]


class PretendTensor(Tensor):
    """A tensor on the device. `held`, on the CPU, are its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "PretendTensor":
        """The tensor of these numbers, without a copy."""
        tensor: PretendTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        tensor.held = held
        return tensor

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendTensor({self.held})"

    def tolist(self) -> Any:
        """The numbers, for which the host waits."""
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Raises TypeError, as there is no array on the device; with `force`, a copy of it."""
        if not force:
            raise TypeError("can't convert a tensor of the pretend device to numpy: use .cpu()")
        return self.detach().cpu().numpy()

    def storage(self) -> Any:
        """Raises NotImplementedError, as PyTorch's tensors without memory of their own do."""
        raise NotImplementedError("a tensor of the pretend device has no storage")

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        function: OpOverload,
        types: tuple[type, ...],
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        return _run(function, arguments, options or {})


def _run(function: OpOverload, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    if function is aten.copy_.default:
        return _copy(arguments[1], arguments[0], *arguments[2:], **options)
    _refuse_mixing(function, arguments, options)
    target = options.get("device") or DEVICE
    if _waits(function, arguments, options) or target.type == "cpu":
        _count_wait()
    if target.type != "cpu" and not (function.is_view or function.overloadpacket in _FREE):
        _count_launch(function.overloadpacket.__name__, _launches(function, arguments))
    here = {**options, "device": _CPU} if "device" in options else options
    made = function(*map(_held, arguments), **{name: _held(here[name]) for name in here})
    if target.type == "cpu":
        _count_moved("from", made)
        return made
    return return_and_correct_aliasing(function, arguments, options, _wrapped(made))


def _held(value: Any) -> Any:
    """An argument of an operator as one of the CPU."""
    if isinstance(value, list | tuple):
        return [_held(one) for one in value]
    return value.held if isinstance(value, PretendTensor) else value


def _wrapped(value: Any) -> Any:
    """What an operator gave on the CPU as on the device."""
    if isinstance(value, list | tuple):
        return type(value)(_wrapped(one) for one in value)
    return PretendTensor(value) if isinstance(value, Tensor) else value


def _copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    if source.device == target.device:
        _count_launch("copy_")
    else:
        _count_moved("from" if target.device == _CPU else "to", source)
        if not non_blocking:
            _count_wait()
    _held(target).copy_(_held(source))
    return target


def _refuse_mixing(
    function: OpOverload, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """Raise RuntimeError where an argument lies on the CPU that CUDA would not take from there.

    It takes indices, and scalars that are read one by one with the values of other tensors.
    """
    indexes = function.overloadpacket in _INDEXES
    by_value = indexes or torch.Tag.pointwise in function.tags
    schema = function._schema.arguments
    given = dict(zip((argument.name for argument in schema), arguments, strict=False)) | options
    for argument in schema:
        if indexes and argument.name == "indices":
            continue
        written = argument.alias_info is not None and argument.alias_info.is_write
        value = given.get(argument.name)
        for one in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(one, Tensor) or isinstance(one, PretendTensor):
                continue
            if one.ndim or written or not by_value:
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two "
                    f"devices, {DEVICE} and {one.device}: {argument.name} of {function}"
                )


def _waits(function: OpOverload, arguments: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Whether the host waits for the device when it asks for this."""
    if function is aten.repeat_interleave.Tensor:
        # How long the result is hangs on values, unless it is told.
        return "output_size" not in options and len(arguments) < 2
    if function.overloadpacket not in _INDEXES:
        return function.overloadpacket in _WAITS
    # A mask becomes the places where it is true; indices on the CPU have to be copied.
    return any(
        one is not None and (one.dtype == torch.bool or one.device != DEVICE)
        for one in arguments[1]
    )


def _launches(function: OpOverload, arguments: tuple[Any, ...]) -> int:
    """How often an operator is launched: one over lists goes tensor by tensor where shapes differ
    from list to list (PyTorch's `ATen/native/ForeachUtils.h`)."""
    name = function.overloadpacket.__name__
    lists = [one for one in arguments if isinstance(one, list | tuple) and name[:9] == "_foreach_"]
    lists = [one for one in lists if one and isinstance(one[0], Tensor)]
    if all(one.shape == first.shape for first, *rest in zip(*lists, strict=True) for one in rest):
        return 1
    return len(lists[0])


def _count_launch(name: str, launches: int = 1) -> None:
    for counts in _counters:
        counts.launches[name] += launches


def _count_moved(way: str, moved: Tensor) -> None:
    for counts in _counters:
        counts.moved[way] += moved.numel() * moved.element_size()


def _count_wait() -> None:
    frame: FrameType | None = sys._getframe()
    line = "elsewhere"
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_HOME) and file != __file__:
            line = f"{file.removeprefix(_HOME)}:{frame.f_lineno}"
            break
        frame = frame.f_back
    for counts in _counters:
        counts.waits[line] += 1


def _factory(name: str) -> Callable[..., Tensor]:
    packet, _, overload = name.partition(".")
    function = getattr(getattr(aten, packet), overload or "default")
    fills = not packet.startswith("empty")

    def make(*arguments: Any, device: Any = None, pin_memory: Any = None, **options: Any) -> Tensor:
        if fills:
            _count_launch(packet)
        return PretendTensor(function(*arguments, **options))

    return make


_library = torch.library.Library("aten", "IMPL")
for _name in _FACTORIES:
    _library.impl(_name, _factory(_name), "PrivateUse1")
# What `torch.tensor(..., device=DEVICE)` comes to.
_library.impl("_copy_from", _copy, "PrivateUse1")
# Under autocast, operators compute in the types that they are given.
_autocast = torch.library.Library("_", "IMPL")
_autocast.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
