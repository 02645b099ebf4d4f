"""The run folder of a study as it is now: what was locked, how each run ended, what it measured."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import ValidationError

from ablations.spec import Claim, Gate, Hypothesis
from ablations.verdicts.evidence import Run
from dashboards.tables.long import table_of
from dashboards.tables.trials import TrialRecord, places_of, read_object, read_trials
from trainers.config import explain
from trainers.errors import InputError

LOCK = "study.lock.json"

Declaration = TypeVar("Declaration", Hypothesis, Gate, Claim)


@dataclass(frozen=True)
class StudyRun:
    """A study as its run folder shows it now; `runs` has every locked (arm, seed), run or not."""

    folder: Path
    lock: dict[str, Any]
    runs: dict[tuple[str, int], Run]
    table: pd.DataFrame

    @property
    def name(self) -> str:
        """Name of the study."""
        return str(self.lock["study"])

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of the lock."""
        return tuple(self.lock["resolved"]["arms"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """The planned seeds, in the order of the lock."""
        return tuple(self.lock["resolved"]["seeds"])

    @property
    def hypotheses(self) -> dict[str, Hypothesis]:
        """The locked hypotheses by id."""
        return _declared(self.lock, "hypotheses", Hypothesis)

    @property
    def claims(self) -> dict[str, Claim]:
        """The locked claims by id."""
        return _declared(self.lock, "claims", Claim)

    @property
    def gates(self) -> dict[str, Gate]:
        """The locked manipulation checks by id."""
        return _declared(self.lock, "gates", Gate)


def read_study(folder: Path) -> StudyRun:
    """The study in `folder`. Raises InputError when it is no run folder or a file is corrupt."""
    lock = read_lock(folder)
    trials = read_trials(lock, folder)
    return StudyRun(
        folder=folder, lock=lock, runs=_runs(lock, trials), table=table_of(lock, trials)
    )


def read_lock(folder: Path) -> dict[str, Any]:
    """The checked `study.lock.json` of `folder`. Raises InputError, one line."""
    path = folder / LOCK
    if not path.is_file():
        raise InputError(f"{folder} is not a run folder: it has no {LOCK}")
    lock = read_object(path)
    required = {
        "study": str,
        "hypotheses_sha256": str,
        "resolved": dict,
        "arms": dict,
        "trials": list,
        "config": dict,
    }
    for name, kind in required.items():
        if not isinstance(lock.get(name), kind):
            raise InputError(f"{path} is corrupt: {name!r} is missing or not a {kind.__name__}")
    for name, kind in {"seeds": list, "arms": dict, "hypotheses": dict, "gates": dict}.items():
        if not isinstance(lock["resolved"].get(name), kind):
            raise InputError(
                f"{path} is corrupt: 'resolved.{name}' is missing or not a {kind.__name__}"
            )
    places = set()
    for trial in lock["trials"]:
        if not isinstance(trial, dict) or not {"key", "arm", "seed"} <= trial.keys():
            raise InputError(f"{path} is corrupt: a trial needs key, arm and seed, got {trial!r}")
        if Path(str(trial["key"])).name != trial["key"]:
            raise InputError(f"{path} is corrupt: not a trial key: {trial['key']!r}")
        places.add((trial["arm"], trial["seed"]))
    for arm in lock["resolved"]["arms"]:
        for seed in lock["resolved"]["seeds"]:
            if (arm, seed) not in places:
                raise InputError(f"{path} is corrupt: no trial for arm {arm!r}, seed {seed}")
    try:
        hypotheses = _declared(lock, "hypotheses", Hypothesis)
        gates = _declared(lock, "gates", Gate)
    except ValidationError as error:
        raise InputError(f"{path} is corrupt: {'; '.join(explain(error))}") from None
    named: list[tuple[str, tuple[str, ...]]] = [
        (name, tuple(hypothesis.contrast)) for name, hypothesis in hypotheses.items()
    ]
    named += [(name, gate.arms) for name, gate in gates.items()]
    for name, arms in named:
        for arm in arms:
            if arm not in lock["resolved"]["arms"]:
                raise InputError(f"{path} is corrupt: {name} names arm {arm!r}, which has no runs")
    return lock


def study_runs(lock: Mapping[str, Any], folder: Path) -> dict[tuple[str, int], Run]:
    """How each (arm, seed) ended, and what it measured at step 0 and at the last step, if there."""
    return _runs(lock, read_trials(lock, folder))


def _declared(
    lock: Mapping[str, Any], group: str, kind: type[Declaration]
) -> dict[str, Declaration]:
    """The locked hypotheses or gates, as checked models."""
    declared = lock["resolved"].get(group, {}).items()
    return {name: kind.model_validate_json(json.dumps(value)) for name, value in declared}


def _runs(lock: Mapping[str, Any], trials: Mapping[str, TrialRecord]) -> dict[tuple[str, int], Run]:
    return {(arm, seed): _run(trials[key]) for arm, seed, key in places_of(lock)}


def _run(trial: TrialRecord) -> Run:
    """How a trial ended; one without a result is failed (it left a message) or missing."""
    start = trial.metrics.get(0, {})
    if trial.result is not None:
        step = trial.result["step"]
        reached_end = step == trial.result["steps"]
        return Run(
            status=trial.result["status"],
            reason=str(trial.result.get("reason", "")),
            start=start,
            end=trial.metrics.get(step, {}) if reached_end else {},
        )
    if trial.failure is not None:
        return Run(status="failed", reason=trial.failure, start=start, end={})
    last = max(trial.metrics, default=None)
    reason = "not started" if last is None else f"not finished, last record at step {last}"
    return Run(status="missing", reason=reason, start=start, end={})
