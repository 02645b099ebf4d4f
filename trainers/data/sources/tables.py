"""Parquet and Arrow files with a column of encoded images, on this machine or object storage."""

import fnmatch
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.data.arrow import MANIFEST
from trainers.data.sources.source import Item, Skipped, is_leftover, split_called
from trainers.errors import DataError, printable, reason
from trainers.system.storage import Location, is_there, is_uri, locate

SUFFIXES = (".parquet", ".arrow")
_LABELS = ("label", "labels", "class", "target", "fine_label", "category")
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class _Stretch:
    """Rows of one file that are read together: a row group, or all batches of an Arrow file."""

    file: int
    group: int
    start: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """Where a file keeps what; `classes` turn integer labels into names."""

    image: str
    label: str | None
    name: str | None
    split: str | None
    classes: tuple[str, ...]

    def all(self) -> list[str]:
        """The columns to read."""
        return [one for one in (self.image, self.label, self.name, self.split) if one]


class Tables:
    """The rows of `.parquet` and `.arrow` files (file or stream format), files sorted by name.

    Images are a column of bytes, or of the struct {bytes, path} of Hugging Face. Labels are a
    column of texts or integers called `label` or the like; integers take the class names that
    Hugging Face keeps in the schema. Splits are told by the file names, such as
    `train-00000-of-00002.parquet`, or by the folders they lie in. The columns `name` and `split`
    are used where `dinolab ingest` wrote them; else an image is called by file and row. Raises
    DataError when the files cannot be used.
    """

    def __init__(self, text: str) -> None:
        home, names = _matching(text)
        self.name = f"tables {home.local or home.shown}"
        if pattern := split_pattern(text)[1]:
            self.name += f"/{pattern}"
        self._files = [home / name if name else home for name, _, _ in names]
        self._labels = [name or home.path.rpartition("/")[2] for name, _, _ in names]
        self._states = [f"{size} {time}" for _, size, time in names]
        self._columns: list[_Columns] = []
        self._stretches: list[_Stretch] = []
        self._starts: list[int] = []
        start = 0
        for number in range(len(self._files)):
            self._starts.append(start)
            schema, sizes = self._look(number)
            self._columns.append(_columns(schema, self._files[number]))
            for group, rows in enumerate(sizes):
                self._stretches.append(_Stretch(file=number, group=group, start=start, rows=rows))
                start += rows
        self._rows = start

    def __len__(self) -> int:
        return self._rows

    def fingerprint(self, places: range) -> str:
        """A hash of the files' names, sizes and times of change, and of the rows meant."""
        listing = hashlib.sha256()
        for stretch in self._within(places):
            number = stretch.file
            listing.update(
                f"{self._files[number].path}\0{self._states[number]}\0"
                f"{stretch.group} {stretch.start}\0".encode()
            )
        listing.update(f"{places.start} {places.stop}".encode())
        return listing.hexdigest()

    def items(self, places: range) -> Iterator[Item | Skipped]:
        """The rows' bytes as they are."""
        for stretch in self._within(places):
            begin = max(places.start - stretch.start, 0)
            end = min(places.stop - stretch.start, stretch.rows)
            row = stretch.start - self._starts[stretch.file] + begin
            try:
                for batch in self._read(stretch, begin, end):
                    for one in self._items(stretch.file, row, batch):
                        yield one
                        row += 1
            except (OSError, pa.ArrowException) as error:
                where = self._files[stretch.file].shown
                raise DataError(f"{where} cannot be read: {reason(error)}") from error

    def _within(self, places: range) -> list[_Stretch]:
        return [
            one
            for one in self._stretches
            if one.start < places.stop and places.start < one.start + one.rows
        ]

    def _look(self, number: int) -> tuple[pa.Schema, list[int]]:
        place = self._files[number]
        try:
            with place.open() as file:
                if place.path.endswith(".parquet"):
                    found = pq.ParquetFile(file)
                    groups = range(found.num_row_groups)
                    return found.schema_arrow, [
                        found.metadata.row_group(group).num_rows for group in groups
                    ]
                reader = _arrow_reader(file)
                return reader.schema, [len(batch) for batch in _batches(reader)]
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{place.shown} cannot be read: {reason(error)}") from error

    def _read(self, stretch: _Stretch, begin: int, end: int) -> Iterator[pa.RecordBatch]:
        """Rows `begin` to `end` of a stretch, a few at a time."""
        columns = self._columns[stretch.file].all()
        place = self._files[stretch.file]
        with place.open() as file:
            if place.path.endswith(".parquet"):
                batches = pq.ParquetFile(file).iter_batches(
                    _ROWS_AT_ONCE, row_groups=[stretch.group], columns=columns
                )
            else:
                whole = next(_batches(_arrow_reader(file), stretch.group)).select(columns)
                batches = (
                    whole.slice(start, _ROWS_AT_ONCE)
                    for start in range(0, len(whole), _ROWS_AT_ONCE)
                )
            seen = 0
            for batch in batches:
                low, high = max(begin - seen, 0), min(end - seen, len(batch))
                if low < high:
                    yield batch.slice(low, high - low)
                seen += len(batch)
                if seen >= end:
                    return

    def _items(self, file: int, row: int, batch: pa.RecordBatch) -> Iterator[Item | Skipped]:
        columns, name = self._columns[file], self._labels[file]
        split = _split_of(name)
        for values in batch.to_pylist():
            image = values[columns.image]
            if isinstance(image, dict):
                image = image.get("bytes")
            shown = values[columns.name] if columns.name else f"{name}#{row}"
            row += 1
            if shown is None:
                shown = f"{name}#{row - 1}"
            if image is None:
                yield Skipped(path=shown, reason="no bytes in this row")
                continue
            label = _label(values[columns.label], columns.classes) if columns.label else ""
            yield Item(
                name=shown,
                label=label,
                split=split_called(values[columns.split] or "") if columns.split else split,
                image=image,
            )


def _label(value: Any, classes: tuple[str, ...]) -> str:
    if value is None or value == -1:  # how Hugging Face marks what has no label
        return ""
    if isinstance(value, int) and 0 <= value < len(classes):
        return classes[value]
    return str(value)


def split_pattern(text: str) -> tuple[str, str]:
    """The folder and the pattern of file names in it; the pattern is empty when there is none.

    What is there by this very name, such as a folder `Photos [2024]`, is no pattern.
    """
    # What follows a question mark in a URI are its options.
    place, mark, options = text.partition("?") if is_uri(text) else (text, "", "")
    folder, slash, name = place.rpartition("/")
    if not any(character in name for character in "*?[") or is_there(text):
        return text, ""
    return ((folder or "/") if slash else ".") + mark + options, name


def _matching(text: str) -> tuple[Location, list[tuple[str, int, int]]]:
    """A location, and name, size and time of the files below it; the name is empty for itself."""
    folder, pattern = split_pattern(text)
    if pattern:
        home = locate(folder)
        names = [one for one in home.files() if fnmatch.fnmatchcase(one[0], pattern)]
    else:
        home = locate(text)
        kind = home.kind()
        if kind == "file":
            (found,) = home.filesystem.get_file_info([home.path])
            return home, [("", found.size, found.mtime_ns or 0)]
        if kind == "nothing":
            raise DataError(f"{home.shown} cannot be read: no such file or folder")
        names = home.files()
    # What `dinolab ingest` wrote is its parts; the tables beside them hold no images.
    if any(one[0] == MANIFEST for one in names):
        names = [one for one in names if one[0].endswith(".arrow")]
    names = [
        one
        for one in names
        if one[0].endswith(SUFFIXES)
        and not any(part.startswith("cache-") or is_leftover(part) for part in one[0].split("/"))
    ]
    if not names:
        raise DataError(f"{printable(text)} holds no {' or '.join(SUFFIXES)} file")
    return home, names


def _arrow_reader(file: Any) -> Any:
    """A reader of an Arrow file, or of a stream as Hugging Face saves it."""
    magic = file.read(6)
    file.seek(0)
    return pa.ipc.open_file(file) if magic == b"ARROW1" else pa.ipc.open_stream(file)


def _batches(reader: Any, first: int = 0) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        return (reader.get_batch(number) for number in range(first, reader.num_record_batches))
    return islice(reader, first, None)


def _columns(schema: pa.Schema, place: Location) -> _Columns:
    images = [field.name for field in schema if _holds_bytes(field.type)]
    preferred = [name for name in ("image", "img") if name in images]
    chosen = (preferred or images)[:1]
    if not chosen or (len(images) > 1 and not preferred):
        raise DataError(
            f"{place.shown} has {len(images)} columns of image bytes "
            f"(columns: {', '.join(map(printable, schema.names))}): give a file with one column "
            "`image`, of binary or of the struct {bytes, path}"
        )
    label = next((name for name in _LABELS if name in schema.names), None)
    text_columns = {
        field.name
        for field in schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    }
    return _Columns(
        image=chosen[0],
        label=label,
        name="name" if "name" in text_columns else None,
        split="split" if "split" in text_columns else None,
        classes=_class_names(schema, label),
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...]:
    """What Hugging Face notes of a ClassLabel column, in the schema's metadata."""
    try:
        notes = (schema.metadata or {})[b"huggingface"]
        return tuple(json.loads(notes)["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _split_of(name: str) -> str:
    """The split that a file's name begins with, or that a folder above it is called."""
    *folders, file = name.split("/")
    stem = file.partition(".")[0]
    for word in (stem.partition("-")[0], stem.partition("_")[0], *reversed(folders)):
        if split := split_called(word):
            return split
    return ""
