"""A data set on disk: parts of encoded images in Arrow files, and one `dataset.json`.

DIR/part-00000.arrow …   rows of `SCHEMA`, from a fixed number of source items each; a last batch
                         without rows carries, as metadata, what was skipped and the fingerprint
                         of the source items it was made from
DIR/dataset.json         written last: version, digest, source, counts, classes, splits, parts
DIR/skipped.parquet      name, reason
DIR/duplicates.parquet   group, name, label, split: images of exactly equal bytes

A folder without `dataset.json` is unfinished: `trainers.data.ingest` goes on with it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.data.sources.source import Item, Skipped
from trainers.errors import DataError, printable, reason
from trainers.system.storage import Location

VERSION = "2"
MANIFEST, SKIPPED, DUPLICATES = "dataset.json", "skipped.parquet", "duplicates.parquet"
FORMAT = "dinolab images"

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),  # in [0, 2⁶³), from the name alone: what keyed randomness counts by
        ("name", pa.string()),
        ("label", pa.string()),  # empty without one
        ("split", pa.string()),  # train, val, test or empty
        ("width", pa.int32()),  # pixels, upright
        ("height", pa.int32()),
        ("sha256", pa.binary(32)),  # of `image`
        ("image", pa.large_binary()),  # as the source has it: JPEG, PNG, …
    ],
    metadata={"version": VERSION},
)
_BATCH_BYTES = 16 * 2**20


def identifier(name: str) -> int:
    """The id of the image called `name`: 63 bits of a SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An item that could be decoded; width and height in pixels, upright."""

    item: Item
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Closing:
    """What a whole part says of itself."""

    source: str
    fingerprint: str
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `dataset.json` holds.

    `source` and `fingerprint` say what it was made from; `digest` is a SHA-256 over names, labels,
    splits and bytes in order, and over nothing else. `classes` are the labels, sorted; `splits`
    counts images; `parts` are file names with rows and bytes. `duplicates` counts the images that
    an image before them equals.
    """

    digest: str
    source: str
    fingerprint: str
    images: int
    skipped: int
    duplicates: int
    classes: tuple[str, ...]
    splits: dict[str, int]
    parts: tuple[tuple[str, int, int], ...]
    version: str = VERSION
    format: str = field(default=FORMAT)


def part_name(number: int) -> str:
    """File name of a part."""
    return f"part-{number:05d}.arrow"


def write_part(
    place: Location, entries: Iterable[Seen | Skipped], *, source: str, fingerprint: str
) -> None:
    """Write entries in their order; the skipped ones go into the closing metadata.

    Raises DataError when the file cannot be written; whatever `entries` raises passes through.
    """
    skipped: list[Skipped] = []
    broken: list[BaseException] = []

    def watched() -> Iterator[Seen | Skipped]:
        try:
            yield from entries
        except BaseException as error:
            broken.append(error)
            raise

    try:
        with place.create() as stream, pa.ipc.new_file(stream, SCHEMA) as writer:
            for batch in _batches(watched(), skipped):
                writer.write_batch(batch)
            notes = {
                "source": source,
                "fingerprint": fingerprint,
                "skipped": json.dumps([asdict(one) for one in skipped]),
            }
            writer.write_batch(_record_batch([]), custom_metadata=notes)
    except OSError as error:
        if broken:  # not ours: an error of the source, or of who is told of the progress
            raise
        raise cannot_write(place, error) from error


def cannot_write(place: Location, error: Exception) -> DataError:
    """The error that `place` cannot be written."""
    return DataError(
        f"{place.shown} cannot be written: {reason(error)}; a data set needs the space of all its "
        "images"
    )


def _batches(entries: Iterable[Seen | Skipped], skipped: list[Skipped]) -> Iterator[pa.RecordBatch]:
    """Images in batches of about `_BATCH_BYTES`; the others go to `skipped`."""
    batch: list[Seen] = []
    size = 0
    for entry in entries:
        if isinstance(entry, Skipped):
            skipped.append(entry)
            continue
        batch.append(entry)
        size += len(entry.item.image)
        if size >= _BATCH_BYTES:
            yield _record_batch(batch)
            batch, size = [], 0
    if batch:
        yield _record_batch(batch)


def _record_batch(batch: list[Seen]) -> pa.RecordBatch:
    columns: dict[str, list[Any]] = {
        "id": [identifier(one.item.name) for one in batch],
        "name": [one.item.name for one in batch],
        "label": [one.item.label for one in batch],
        "split": [one.item.split for one in batch],
        "width": [one.width for one in batch],
        "height": [one.height for one in batch],
        "sha256": [hashlib.sha256(one.item.image).digest() for one in batch],
        "image": [one.item.image for one in batch],
    }
    return pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


def _opened(file: Any, columns: list[str] | None = None) -> tuple[Any, Closing]:
    """A reader of a part and its closing notes. ValueError unless it is whole."""
    wanted = [SCHEMA.get_field_index(name) for name in columns or SCHEMA.names]
    # To name all columns would copy them out of the map.
    options = pa.ipc.IpcReadOptions(included_fields=wanted if columns else None)
    try:
        reader = pa.ipc.open_file(file, options=options)
        expected = pa.schema([SCHEMA.field(place) for place in sorted(wanted)], SCHEMA.metadata)
        if not reader.schema.equals(expected, check_metadata=True):
            raise ValueError("it was written by another version")
        last = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
        notes = last.custom_metadata
        return reader, Closing(
            source=notes[b"source"].decode(),
            fingerprint=notes[b"fingerprint"].decode(),
            skipped=tuple(Skipped(**one) for one in json.loads(notes[b"skipped"])),
        )
    # Damage can also surface as a key, a type or a feature that pyarrow does not know.
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise ValueError(f"it is damaged: {reason(error)}") from error


def closing(place: Location) -> Closing | None:
    """The closing notes of a part, or None when there is no whole part of this version."""
    try:
        with place.open() as file:
            return _opened(file, ["id"])[1]
    except (OSError, ValueError):
        return None


def read_part(place: Location, columns: list[str] | None = None) -> pa.Table:
    """The rows of a part: mapped, not copied, when it is local. Raises ValueError unless whole.

    From object storage only `columns` are fetched.
    """
    try:
        # What was mapped outlives the file, so that a thousand parts hold no thousand files open.
        with place.open() as file:
            reader, _ = _opened(file, None if place.local else columns)
            table = reader.read_all()
        table.validate(full=True)  # that texts and images lie inside the file; not the images
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"it is damaged: {reason(error)}") from error
    if columns:
        table = table.select(columns)
        if not place.local:
            # What was fetched hangs in a buffer as large as the part: keep a copy without it.
            copy = pa.BufferOutputStream()
            with pa.ipc.new_stream(copy, table.schema) as writer:
                writer.write_table(table)
            table = pa.ipc.open_stream(copy.getvalue()).read_all()
    return table


def write_table(place: Location, table: pa.Table) -> None:
    """Write a parquet file. Raises DataError."""
    try:
        with place.create() as stream:
            pq.write_table(table, stream)
    except OSError as error:
        raise cannot_write(place, error) from error


def read_table(place: Location) -> pa.Table:
    """A parquet file that `write_table` wrote. Raises DataError when it is not whole."""
    try:
        with place.open() as file:
            return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{place.shown} is damaged: {reason(error)}; ingest again") from error


def read_skipped(home: Location) -> tuple[Skipped, ...]:
    """What was skipped. Raises ValueError when the table is not whole."""
    try:
        rows = read_table(home / SKIPPED).to_pylist()
        return tuple(Skipped(path=row["name"], reason=row["reason"]) for row in rows)
    except (DataError, KeyError) as error:
        raise ValueError(str(error)) from error


def write_manifest(home: Location, manifest: Manifest) -> None:
    """Write `dataset.json`: from then on the data set is finished. Raises DataError."""
    place = home / MANIFEST
    text = json.dumps(asdict(manifest), indent=1, ensure_ascii=False)
    try:
        with place.create() as stream:
            stream.write(text.encode())
    except OSError as error:
        raise cannot_write(place, error) from error


def read_manifest(home: Location) -> Manifest | None:
    """What `home` says of itself; None when there is no `dataset.json`, or not one of ours.

    Raises DataError when it is ours but damaged or of another version.
    """
    place = home / MANIFEST
    if place.kind() != "file":
        return None
    try:
        raw = json.loads(place.read())
    except (OSError, ValueError):
        return None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        return None
    if raw.get("version") != VERSION:
        raise DataError(
            f"{printable(home.shown)} was written by another version of dinolab "
            f"({raw.get('version')}, not {VERSION}): ingest it again into another folder"
        )
    try:
        parts = tuple((str(name), int(rows), int(size)) for name, rows, size in raw.pop("parts"))
        return Manifest(**{**raw, "classes": tuple(raw["classes"]), "parts": parts})
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{printable(place.shown)} is damaged ({reason(error)}): delete the folder and ingest "
            "again"
        ) from error


def mapped(home: Location, manifest: Manifest) -> pa.Table:
    """All rows of a finished local data set, memory-mapped. ValueError unless it is whole."""
    tables = []
    for name, rows, size in manifest.parts:
        try:
            found = Path(home.path, name).stat().st_size
            if found != size:
                raise ValueError(f"it has {found} bytes, not {size}")
            table = read_part(home / name)
            if len(table) != rows:
                raise ValueError(f"it has {len(table)} rows, not {rows}")
        except (OSError, ValueError) as error:
            raise ValueError(f"{(home / name).shown}: {reason(error)}") from error
        tables.append(table)
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()
