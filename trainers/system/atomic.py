"""Files that are either whole or not there."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to be written that takes the place of `path`, as `replacing_by_name` does."""
    with replacing_by_name(path) as written, written.open("wb") as file:
        yield file


@contextlib.contextmanager
def replacing_by_name(path: Path, *, if_absent: bool = False) -> Iterator[Path]:
    """Where to write a file whose content becomes that of `path`, whole, when the block ends.

    Readers see the old file or the new one, never a part; after an exception the old one. The new
    one outlives a power cut: it is synced, and so is the name in its folder. With `if_absent` it
    raises FileExistsError, at the end, when there is an old one; of several that do so at once, one
    does not.
    """
    with scratch_file(path.parent, f".{path.name}.") as written:
        yield written
        sync(written)
        written.chmod(0o644)
        if if_absent:
            _link(written, path)
        else:
            written.replace(path)
    sync(path.parent)


def _link(written: Path, path: Path) -> None:
    """Give a file the name `path`. Raises FileExistsError when another has it."""
    try:
        os.link(written, path)
    except FileExistsError:
        # A file system on a network that lost its answer finds, asked again, its own.
        if not written.samefile(path):
            raise
    except OSError:
        # Not every file system has links. A kill between the two leaves an empty file.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        try:
            written.replace(path)
        except OSError:
            path.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def scratch_file(folder: Path, prefix: str = ".scratch.") -> Iterator[Path]:
    """An empty file of its own in `folder`, which is gone when the block ends."""
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=prefix)
    os.close(descriptor)
    written = Path(name)
    try:
        yield written
    finally:
        written.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Return once a file, or the names in a folder, would outlive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes) -> Path:
    """Write `content` to `path`, as `replacing` does; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)
    return path


def replace_json(path: Path, value: object) -> Path:
    """Write `value` as indented JSON, atomically."""
    return replace(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
