"""The indexed data set on disk: one Arrow file of encoded images, memory-mapped for reading.

Columns: `path` (relative, posix), `label` (name of the first sub-folder, empty without one),
`width`, `height` (pixels, upright) and `image` (the bytes of the original file). The schema's
metadata holds the digest and what was skipped.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("image", pa.large_binary()),
    ]
)
_ROWS_A_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file that is not in the data set, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image with its bytes."""

    path: str
    label: str
    width: int
    height: int
    image: bytes


def write(path: Path, entries: Iterable[Entry | Skipped]) -> None:
    """Write entries in their order, and the skipped ones as metadata; the file appears whole."""
    digest = hashlib.sha256()
    skipped: list[Skipped] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    body = Path(name)
    try:
        with pa.OSFile(name, "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
            for batch in _batches(entries, skipped):
                for entry in batch:
                    head = f"{entry.path}\0{entry.label}\0{len(entry.image)}\0"
                    digest.update(head.encode() + entry.image)
                rows = [vars(entry) for entry in batch]
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SCHEMA))
        _sync(body)
        notes = {
            "digest": digest.hexdigest(),
            "skipped": [vars(one) for one in skipped],
        }
        # The notes are known last: they go into a file of their own, in place before the images.
        (Path(f"{name}.json")).write_text(json.dumps(notes))
        _sync(Path(f"{name}.json"))
        Path(f"{name}.json").replace(_notes(path))
        body.replace(path)
    finally:
        body.unlink(missing_ok=True)
        Path(f"{name}.json").unlink(missing_ok=True)


def _batches(entries: Iterable[Entry | Skipped], skipped: list[Skipped]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Skipped):
            skipped.append(entry)
            continue
        batch.append(entry)
        if len(batch) == _ROWS_A_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _notes(path: Path) -> Path:
    return path.with_suffix(".json")


def read(path: Path) -> tuple[pa.Table, str, tuple[Skipped, ...]]:
    """The memory-mapped table, its digest and what was skipped.

    Raises OSError or ValueError (pyarrow's errors are both) when there is no whole file.
    """
    notes = json.loads(_notes(path).read_text())
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    return table, notes["digest"], tuple(Skipped(**one) for one in notes["skipped"])
