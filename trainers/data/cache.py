"""Where a run root keeps the data sets that it has indexed."""

import contextlib
import os
from pathlib import Path

from trainers.system.storage import is_uri

CACHE, FORMER_CACHE = "data", ".data"
"""Folder of a run root in which indexes of image folders lie, and what it was called."""


def cache_in(root: str | Path) -> Path:
    """Where the indexes of a run root lie; those of an older root are moved there.

    They are mapped into memory, so those of a root on object storage lie on each machine, in its
    user's cache.
    """
    if is_uri(os.fspath(root)):
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
        return Path(home, "dinolab", CACHE)
    root = Path(root)
    cache, former = root / CACHE, root / FORMER_CACHE
    for index in list(former.glob(f"{'[0-9a-f]' * 16}-*")):
        # Another worker may have moved it already, or made it anew; what is mapped stays mapped.
        with contextlib.suppress(OSError):
            cache.mkdir(exist_ok=True)
            index.rename(cache / index.name)
    with contextlib.suppress(OSError):
        former.rmdir()
    return cache
