"""Out of memory, on a GPU or a CPU, becomes one line that names the knobs to change."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainers.errors import OutOfMemoryError

_SAID = re.compile(r"out of memory|can(?:no|')t allocate memory|alloc_failed", re.IGNORECASE)
_AMOUNT = re.compile(r"allocate (\d[\d.]*) ?(\w+)")


@contextmanager
def memory_explained(doing: str, remedy: str) -> Iterator[None]:
    """Raises OutOfMemoryError where memory runs out inside: what was done, what to change."""
    try:
        yield
    except OutOfMemoryError:  # which part of it was done is said already
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        found = _AMOUNT.search(str(error))
        amount = f" ({found[1]} {found[2]} more were asked for)" if found else ""
        raise OutOfMemoryError(f"out of memory in {doing}{amount}: {remedy}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of a device or of the machine was asked for in vain."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError | OutOfMemoryError):
        return True
    # PyTorch says it of CPUs and of the libraries on a GPU in words alone.
    return isinstance(error, RuntimeError | OSError) and bool(_SAID.search(str(error)))
