"""Everything the trials recorded, as one long table."""

from collections.abc import Mapping

import pandas as pd

from ablations.lock import Lock
from dashboards.names import split_metric
from dashboards.tables.trials import TrialRecord, places_of, read_trials
from trainers.system.store import Store

COLUMNS = ("study", "arm", "seed", "step", "metric", "layer", "head", "token", "value")


def long_table(lock: Lock, store: Store) -> pd.DataFrame:
    """Everything the trials recorded, one value a row, in the nine columns of `results.parquet`.

    `layer`, `head` and `token` are empty where a metric has none. Rows are in order of arm and seed
    (as locked), step, metric, layer and head.
    """
    return table_of(lock, read_trials(lock, store))


def table_of(lock: Lock, trials: Mapping[str, TrialRecord]) -> pd.DataFrame:
    split = {
        key: split_metric(key)
        for trial in trials.values()
        for metrics in trial.metrics.values()
        for key in metrics
    }
    order = sorted(split, key=lambda key: [(part is not None, part) for part in split[key][:3]])
    rank = {key: number for number, key in enumerate(order)}
    study = lock.study
    rows = [
        (study, arm, seed, step, *split[key], metrics[key])
        for arm, seed, trial_key in places_of(lock)
        for step, metrics in trials[trial_key].metrics.items()
        for key in sorted(metrics, key=rank.__getitem__)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype(
        {
            "study": "string",
            "arm": "string",
            "seed": "int64",
            "step": "int64",
            "metric": "string",
            "layer": "Int64",
            "head": "Int64",
            "token": "string",
            "value": "float64",
        }
    )
