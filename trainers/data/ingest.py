"""A source becomes an indexed data set, part by part, so that a kill loses one part at most.

Any number of processes may ingest one source into one folder at once, on one machine or on several
that share it: each makes the parts that no other is at, and one of them concludes.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice

import numpy as np
import pyarrow as pa

from trainers.data import arrow
from trainers.data.arrow import Manifest, Seen
from trainers.data.decode import UnreadableImage, decode, decoding_threads
from trainers.data.sources.source import Item, Skipped, Source
from trainers.errors import DataError, printable
from trainers.system.storage import Location

Progress = Callable[[int, int], None]
"""Called with items done and all, after each item or finished part."""

ITEMS_PER_PART = 1024

_OURS = re.compile(
    rf"\.?(part-\d{{5,}}\.arrow|{re.escape(arrow.MANIFEST)}|{re.escape(arrow.SKIPPED)}|"
    rf"{re.escape(arrow.DUPLICATES)})(\.\w+)?"
)
_AT_ONCE = 64
"""Items whose bytes wait to be decoded: as many as keep the threads busy."""


def ingest(source: Source, home: Location, progress: Progress | None = None) -> Manifest:
    """The data set of `source` in the folder `home`: made, finished, or found finished.

    Every image is decoded once, by one of the processes that call this at once: a broken one is
    skipped, with the reason. Parts that an interrupted call left whole are kept if their items are
    as they were then. Raises DataError when `home` holds anything else, when it cannot be written,
    or when the source cannot be used.
    """
    _refuse_others(home)
    fingerprint = source.fingerprint(range(len(source)))
    if found := _finished(source, home, fingerprint):
        return found
    home.make_folder()
    names = _write_parts(source, home, progress)
    with home.held():
        # Whoever held it before may have finished.
        if found := _finished(source, home, fingerprint):
            return found
        for name in set(home.sizes()) - set(names):  # of killed calls, or a source that shrank
            (home / name).delete()
        return _conclude(source, home, fingerprint, names)


def _refuse_others(home: Location) -> None:
    if home.kind() == "file":
        raise DataError(f"{home.shown} is a file: give a folder, new or of an earlier ingest")
    present = home.sizes()
    others = [name for name, size in present.items() if size < 0 or not _OURS.fullmatch(name)]
    # A `dataset.json` of somebody else stands alone.
    is_ours = arrow.part_name(0) in present or arrow.read_manifest(home)
    if arrow.MANIFEST in present and not is_ours:
        others.append(arrow.MANIFEST)
    if others:
        raise DataError(
            f"{home.shown} holds something else ({printable(min(others))}): give a folder that is "
            "new, empty or of an earlier ingest"
        )


def _finished(source: Source, home: Location, fingerprint: str) -> Manifest | None:
    manifest = arrow.read_manifest(home)
    if manifest is None:
        return None
    if manifest.source != source.name:
        raise DataError(
            f"{home.shown} holds the images of {printable(manifest.source)}, not of "
            f"{printable(source.name)}: give another folder"
        )
    if manifest.fingerprint != fingerprint:
        raise DataError(
            f"{home.shown} holds what {printable(source.name)} was before it changed: give "
            "another folder, or delete this one"
        )
    return manifest


def _write_parts(source: Source, home: Location, progress: Progress | None) -> list[str]:
    """Return once all parts are there, made here or by others; their names."""
    for name in home.sizes():
        notes = arrow.closing(home / name) if name.startswith("part-") else None
        if notes and notes.source != source.name:
            raise DataError(
                f"{home.shown} holds an unfinished ingest of {printable(notes.source)}: give "
                "another folder, or delete this one"
            )
    total = len(source)
    starts = range(0, total, ITEMS_PER_PART)
    places = {
        arrow.part_name(number): range(start, min(start + ITEMS_PER_PART, total))
        for number, start in enumerate(starts)
    }
    done = 0

    def count(items: int = 1) -> None:
        nonlocal done
        done += items
        if progress:
            progress(done, total)

    with (
        ThreadPoolExecutor(decoding_threads(), thread_name_prefix="ingest") as pool,
        closing(home.claimed_in_turn(places)) as names,
    ):
        for name in names:
            fingerprint = source.fingerprint(places[name])
            if _is_whole(home / name, fingerprint):
                count(len(places[name]))
                continue
            try:
                arrow.write_part(
                    home / name,
                    _seen(source, places[name], pool, count),
                    source=source.name,
                    fingerprint=fingerprint,
                )
            except DataError:
                # Without locks another may have made it, and cleaned up.
                if not _is_whole(home / name, fingerprint):
                    raise
    return list(places)


def _is_whole(part: Location, fingerprint: str) -> bool:
    notes = arrow.closing(part)
    return notes is not None and notes.fingerprint == fingerprint


def _seen(
    source: Source, places: range, pool: ThreadPoolExecutor, count: Callable[[], None]
) -> Iterator[Seen | Skipped]:
    """The items at `places`, decoded to know their size; order as in the source."""
    items = source.items(places)
    found = 0
    while window := list(islice(items, _AT_ONCE)):
        for entry in pool.map(_look, window):
            yield entry
            found += 1
            count()
    assert found == len(places)


def _look(item: Item | Skipped) -> Seen | Skipped:
    if isinstance(item, Skipped):
        return item
    try:
        width, height = decode(item.image).size
    except UnreadableImage as error:
        return Skipped(path=item.name, reason=str(error))
    return Seen(item=item, width=width, height=height)


def _conclude(source: Source, home: Location, fingerprint: str, names: list[str]) -> Manifest:
    """Digest, tables and manifest, from the small columns of all parts."""
    columns = ["id", "name", "label", "split", "sha256"]
    try:
        tables = [arrow.read_part(home / name, columns) for name in names]
    except ValueError as error:
        raise DataError(f"{home.shown} was changed while it was written: {error}") from error
    sizes = home.sizes()
    table = pa.concat_tables(tables) if tables else arrow.SCHEMA.empty_table().select(columns)
    _refuse_equal_identifiers(table)
    skipped = [
        one for name in names if (notes := arrow.closing(home / name)) for one in notes.skipped
    ]
    arrow.write_table(
        home / arrow.SKIPPED,
        pa.table(
            {
                "name": pa.array([one.path for one in skipped], pa.string()),
                "reason": pa.array([one.reason for one in skipped], pa.string()),
            }
        ),
    )
    repeated = _duplicates(table)
    arrow.write_table(home / arrow.DUPLICATES, repeated)
    counts = table["split"].value_counts().to_pylist()
    manifest = Manifest(
        digest=_digest(table),
        source=source.name,
        fingerprint=fingerprint,
        images=len(table),
        skipped=len(skipped),
        duplicates=len(repeated) - len(repeated["group"].unique()),
        classes=tuple(sorted(table["label"].unique().to_pylist(), key=_class_order)),
        splits={one["values"]: one["counts"] for one in counts},
        parts=tuple(
            (name, len(part), sizes[name]) for name, part in zip(names, tables, strict=True)
        ),
    )
    arrow.write_manifest(home, manifest)
    return manifest


def _class_order(label: str) -> tuple[int, str]:
    """Numbers by value, then words."""
    is_number = label.isdecimal() and label.isascii()
    return (len(label) if is_number else 100, label)


def _digest(table: pa.Table) -> str:
    """A SHA-256 over name, label, split and SHA-256 of the bytes of every row, in order."""
    digest = hashlib.sha256()
    for batch in table.select(["name", "label", "split", "sha256"]).to_batches(4096):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            for text in row[:3]:
                encoded = text.encode()
                digest.update(len(encoded).to_bytes(8, "little") + encoded)
            digest.update(row[3])
    return digest.hexdigest()


def _refuse_equal_identifiers(table: pa.Table) -> None:
    """Equal names, or two names of one hash, would draw the same random numbers."""
    identifiers = table["id"].to_numpy()
    order = np.argsort(identifiers, kind="stable")
    equal = np.flatnonzero(identifiers[order][1:] == identifiers[order][:-1])
    if len(equal):
        one, other = (
            printable(table["name"][int(order[equal[0] + step])].as_py()) for step in (0, 1)
        )
        raise DataError(
            f"{len(equal)} images have the id of another, such as {one} and {other}: "
            "give them other names"
        )


def _duplicates(table: pa.Table) -> pa.Table:
    """Rows whose bytes another row has, too, by group; groups in order of their first image."""
    codes = table["sha256"].combine_chunks().dictionary_encode()
    if isinstance(codes, pa.ChunkedArray):
        codes = codes.combine_chunks()
    groups = codes.indices.to_numpy()
    often = np.bincount(groups, minlength=1)[groups] > 1
    rows = np.flatnonzero(often)
    rows = rows[np.argsort(groups[rows], kind="stable")]
    _, numbers = np.unique(groups[rows], return_inverse=True)
    chosen = table.select(["name", "label", "split"]).take(pa.array(rows, pa.int64()))
    return chosen.add_column(0, "group", pa.array(numbers, pa.int64()))
