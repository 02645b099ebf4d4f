"""The folders of a study's trials: metrics by step, and how each trial ended."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.lock import Lock
from trainers.errors import InputError
from trainers.runs.reporters import read_records

RESULT_STATUSES = ("finished", "collapsed", "diverged")


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


def read_trials(lock: Lock, folder: Path) -> dict[str, TrialRecord]:
    """The trials by key; arms that are identical share one."""
    keys = dict.fromkeys(key for _, _, key in places_of(lock))
    return {key: _read_trial(folder / "trials" / key) for key in keys}


def _read_trial(folder: Path) -> TrialRecord:
    result_path, failure_path = folder / "result.json", folder / "failure.json"
    result = read_object(result_path) if result_path.is_file() else None
    if result is not None and (
        result.get("status") not in RESULT_STATUSES
        or not isinstance(result.get("step"), int)
        or not isinstance(result.get("steps"), int)
    ):
        raise InputError(
            f"{result_path} is corrupt: status must be one of {', '.join(RESULT_STATUSES)}, "
            "and step and steps whole numbers"
        )
    failure = read_object(failure_path) if failure_path.is_file() else None
    return TrialRecord(
        metrics=_by_step(read_records(folder / "metrics.jsonl")),
        result=result,
        failure=None if failure is None else str(failure.get("message", "no message")),
    )


def _by_step(records: Iterable[tuple[int, Mapping[str, float]]]) -> dict[int, dict[str, float]]:
    """Metrics by step, ascending. A step that was recorded again after a restart counts once."""
    steps: dict[int, dict[str, float]] = {}
    for step, metrics in records:
        steps.setdefault(step, {}).update(metrics)
    return dict(sorted(steps.items()))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises InputError when it holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is corrupt: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is corrupt: not a JSON object")
    return content
