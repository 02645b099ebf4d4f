"""The indexed data set on disk: one Arrow file of encoded images, memory-mapped for reading.

Columns: `path` (relative, posix), `label` (name of the first sub-folder, empty without one),
`width`, `height` (pixels, upright) and `image` (the bytes of the original file). The last batch
has no rows; its metadata holds what is known only at the end: the digest and what was skipped.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("image", pa.large_binary()),
    ],
    metadata={"version": "1"},
)
_BATCH_BYTES = 16 * 2**20


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
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    digest = hashlib.sha256()
    skipped: list[dict[str, str]] = []
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            pa.ipc.new_file(pa.PythonFile(file), _SCHEMA) as writer,
        ):
            for batch in _batches(entries, skipped):
                for entry in batch:
                    head = f"{entry.path}\0{entry.label}\0{len(entry.image)}\0"
                    digest.update(head.encode())
                    digest.update(entry.image)
                rows = [vars(entry) for entry in batch]
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SCHEMA))
            notes = {"digest": digest.hexdigest(), "skipped": json.dumps(skipped)}
            nothing = pa.RecordBatch.from_pylist([], schema=_SCHEMA)
            writer.write_batch(nothing, custom_metadata=notes)
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _batches(
    entries: Iterable[Entry | Skipped], skipped: list[dict[str, str]]
) -> Iterator[list[Entry]]:
    """Images in batches of about `_BATCH_BYTES`; the others go to `skipped`."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if isinstance(entry, Skipped):
            skipped.append(asdict(entry))
            continue
        batch.append(entry)
        size += len(entry.image)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def read(path: Path) -> tuple[pa.Table, str, tuple[Skipped, ...]]:
    """The memory-mapped table, its digest and what was skipped.

    Raises OSError or ValueError when there is no whole file of this version.
    """
    try:
        return _read(path)
    # Damage can also surface as a key, a type or a feature that pyarrow does not know.
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _read(path: Path) -> tuple[pa.Table, str, tuple[Skipped, ...]]:
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    if not reader.schema.equals(_SCHEMA, check_metadata=True):
        raise ValueError(f"{path} was written by another version")
    notes = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1).custom_metadata
    skipped = tuple(Skipped(**one) for one in json.loads(notes[b"skipped"]))
    table = reader.read_all()
    table.validate(full=True)  # that texts and images lie inside the file; not the images
    return table, notes[b"digest"].decode(), skipped
