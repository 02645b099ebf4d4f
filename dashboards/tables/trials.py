"""The folders of a study's trials: metrics by step, and how each trial ended."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ablations.lock import Lock
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import Store


@dataclass(frozen=True)
class TrialRecord:
    """What one trial folder holds: metrics by step, and how the trial ended, if it did."""

    metrics: Mapping[int, Mapping[str, float]]
    result: Mapping[str, Any] | None
    failure: str | None


def places_of(lock: Lock) -> Iterator[tuple[str, int, str]]:
    """Every planned (arm, seed, trial key), in order of arms and seeds as locked."""
    keys = {(trial.arm, trial.seed): trial.key for trial in lock.trials}
    for arm in lock.resolved.arms:
        for seed in lock.resolved.seeds:
            yield arm, seed, keys[arm, seed]


def read_trials(lock: Lock, store: Store) -> dict[str, TrialRecord]:
    """The trials by key; arms that are identical share one."""
    keys = dict.fromkeys(key for _, _, key in places_of(lock))
    return {key: _read_trial(StoredTrial(store, key)) for key in keys}


def _read_trial(trial: StoredTrial) -> TrialRecord:
    failure = trial.failed()
    return TrialRecord(
        metrics=_by_step(trial.records()),
        result=trial.finished(),
        failure=None if failure is None else failure.message,
    )


def _by_step(records: Iterable[tuple[int, Mapping[str, float]]]) -> dict[int, dict[str, float]]:
    """Metrics by step, ascending. A step that was recorded again after a restart counts once."""
    steps: dict[int, dict[str, float]] = {}
    for step, metrics in records:
        steps.setdefault(step, {}).update(metrics)
    return dict(sorted(steps.items()))
