"""Files that are made on this machine before MLflow gets them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from trainers.errors import DinolabError, InputError, reason


@contextmanager
def written_here(what: str) -> Iterator[None]:
    """Raises InputError, one line, where `what` cannot be written: it is not MLflow's fault."""
    try:
        yield
    except DinolabError:
        raise
    # PyTorch raises a RuntimeError where a disk is full.
    except (OSError, MemoryError, RuntimeError) as error:
        raise InputError(
            f"{what} cannot be written on this machine: {reason(error)}; give memory, or space in "
            f"{tempfile.gettempdir()} (TMPDIR names another folder)"
        ) from error
