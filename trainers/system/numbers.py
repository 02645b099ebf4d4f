"""What numbers PyTorch gives: the same bits each time, and how products are rounded."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def measuring(*, tf32: bool = False) -> Iterator[None]:
    """Where what has no deterministic form on a GPU runs, and is warned of: cumulative sums. With
    `tf32`, products of float32 are rounded to 10 bits of mantissa there."""
    strict = torch.get_deterministic_debug_mode()
    before = torch.get_float32_matmul_precision() != "highest"
    torch.set_deterministic_debug_mode("warn" if strict else "default")
    allow_tf32(tf32)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(strict)
        allow_tf32(before)


def allow_tf32(allowed: bool) -> None:
    """Whether products of float32 may be rounded to 10 bits of mantissa, on GPUs that can."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
