"""Everything the trials of a study recorded, as one long table."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from ablations.registration import Entry
from dashboards.tables.trials import each_place
from dashboards.tables.values import SCHEMA, values_of
from trainers.errors import InputError
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import Store

if TYPE_CHECKING:
    import pandas as pd

LONG = pa.schema(
    [
        pa.field("study", pa.string(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        *SCHEMA,
    ]
)
"""Columns of `results.parquet`."""

COLUMNS = tuple(LONG.names)


def long_tables(entry: Entry, store: Store) -> Iterator[pa.Table]:
    """Everything the trials recorded, one value a row and one table a run, with LONG's columns.

    `layer`, `head` and `token` are empty where a metric has none. Runs are in order of arm and seed
    (as stated), rows in that of step, metric, layer and head. One whose files are damaged has no
    rows.
    """
    for arm, seed, values in each_place(entry, store, _values):
        yield placed(values, entry.study, arm, seed)


def long_table(entry: Entry, store: Store) -> "pd.DataFrame":
    """The same as one table, which takes about 100 bytes a value."""
    table = pa.concat_tables([LONG.empty_table(), *long_tables(entry, store)])
    # As `results.parquet` is read by pandas, but that whole numbers stay whole.
    import pandas as pd

    kinds = {pa.string(): pd.StringDtype()}
    return table.to_pandas(types_mapper=kinds.get).astype({"layer": "Int64", "head": "Int64"})


def placed(values: pa.Table, study: str, arm: str, seed: int) -> pa.Table:
    """Values of one run with its place in the study."""
    place = [pa.repeat(pa.scalar(part), len(values)) for part in (study, arm, seed)]
    return pa.Table.from_arrays([*place, *values.columns], schema=LONG)


def _values(trial: StoredTrial) -> pa.Table:
    try:
        return values_of(trial, trial.finished())
    except InputError:
        return SCHEMA.empty_table()
