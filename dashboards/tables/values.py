"""What one trial measured, as a table; that of a finished trial is kept beside its result.

The kept table is a cache: it names the records that it was made from, and is made again when it is
missing, damaged, or of others.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dashboards.names import split_metric
from trainers.errors import StoreError
from trainers.runs.records import Digest, Record
from trainers.runs.stored_trial import StoredTrial

VALUES = "values.parquet"

SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("layer", pa.int64()),
        pa.field("head", pa.int64()),
        pa.field("token", pa.string()),
        pa.field("value", pa.float64(), nullable=False),
    ]
)

_MADE_FROM = b"dinolab.records"

_FORMAT = 1
"""Another one when the same records give another table."""


def values_of(trial: StoredTrial, result: Mapping[str, Any] | None) -> pa.Table:
    """Every value of `trial`, whose result is `result`, in order of step, metric, layer and head.

    Raises InputError, one line, when records are damaged, or missing beside a result.
    """
    if result is None:
        return table_of(trial.records())
    records = trial.segments_of(result)
    made_from = made_from_of(records)
    key = f"{trial.folder}/{VALUES}"
    table = _opened(trial.store.get(key), made_from)
    if table is None:
        table = table_of(trial.records())
        # A root that can only be read has reports all the same.
        with contextlib.suppress(StoreError):
            trial.store.put(key, content_of(table, made_from))
    elif trial.store.local is not None:
        # Object storage has checksums of its own.
        for segment, digest in records.items():
            trial.intact(segment, digest)
    return table


def made_from_of(records: Mapping[str, Digest]) -> bytes:
    """What a kept table says of the records that it was made from, whose digests these are."""
    return hashlib.sha256(json.dumps([_FORMAT, records], sort_keys=True).encode()).digest()


def content_of(table: pa.Table, made_from: bytes) -> bytes:
    """The kept table as a file."""
    buffer = pa.BufferOutputStream()
    marked = table.replace_schema_metadata({_MADE_FROM: made_from})
    pq.write_table(marked, buffer, compression="zstd", write_page_checksum=True)
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def _opened(content: bytes | None, made_from: bytes) -> pa.Table | None:
    """The table, or None where it is missing, damaged or made from other records."""
    if content is None:
        return None
    try:
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            table = file.read(use_threads=False)
    except (pa.ArrowException, OSError):
        return None
    metadata = table.schema.metadata or {}
    if metadata.get(_MADE_FROM) != made_from or not table.schema.equals(SCHEMA):
        return None
    return table.replace_schema_metadata(None)


def table_of(records: Iterable[Record]) -> pa.Table:
    """Records as one value a row. A step that was recorded again after a restart counts once."""
    steps: dict[int, dict[str, float]] = {}
    for step, metrics in records:
        steps.setdefault(step, {}).update(metrics)
    tables = [SCHEMA.empty_table()]
    for step, metrics in sorted(steps.items()):
        order, columns = _columns(tuple(metrics))
        values = np.fromiter(metrics.values(), np.float64, len(metrics))[order]
        number = pa.array(np.full(len(order), step))
        tables.append(pa.Table.from_arrays([number, *columns, pa.array(values)], schema=SCHEMA))
    return pa.concat_tables(tables).combine_chunks()


@functools.lru_cache(maxsize=256)
def _columns(names: tuple[str, ...]) -> tuple[npt.NDArray[np.intp], list[pa.Array]]:
    """The order of recorded names, and metric, layer, head and token in it; runs share them."""
    split = [split_metric(name) for name in names]
    order = sorted(
        range(len(names)),
        key=lambda number: [(part is not None, part) for part in split[number][:3]],
    )
    columns = list(zip(*(split[number] for number in order), strict=True)) or [()] * 4
    kinds = [SCHEMA.field(name).type for name in ("metric", "layer", "head", "token")]
    arrays = [pa.array(column, type=kind) for column, kind in zip(columns, kinds, strict=True)]
    return np.array(order, dtype=np.intp), arrays


class Measured(Mapping[str, float]):
    """Values of one step by recorded name. Runs that record the same names share those."""

    def __init__(self, places: Mapping[str, int], values: npt.NDArray[np.float64]) -> None:
        self._places, self._values = places, values

    def __getitem__(self, name: str) -> float:
        return float(self._values[self._places[name]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Steps:
    """Steps of tables of trials as mappings."""

    def __init__(self) -> None:
        self._known: dict[int, list[tuple[pa.Table, dict[str, int]]]] = {}

    def at(self, table: pa.Table, step: int) -> Measured:
        """What was measured at `step`; empty where nothing was."""
        rows = table.filter(pc.equal(table["step"], step))
        names = rows.select(["metric", "layer", "head"])
        return Measured(self._places(names), rows["value"].to_numpy())

    def _places(self, names: pa.Table) -> dict[str, int]:
        known = self._known.setdefault(len(names), [])
        for other, places in known:
            if other.equals(names):
                return places
        columns = (names[name].to_pylist() for name in names.column_names)
        recorded = (
            metric + ("" if layer is None else f"@{layer}") + ("" if head is None else f".{head}")
            for metric, layer, head in zip(*columns, strict=True)
        )
        places = {name: number for number, name in enumerate(recorded)}
        known.append((names, places))
        return places
