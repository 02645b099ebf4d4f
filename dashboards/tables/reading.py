"""The run folder of a study as it is now: what was locked, how each run ended, what it measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import ValidationError

from ablations.lock import LOCK, Lock, shortened, study_folder
from ablations.spec import Claim, Gate, Hypothesis
from ablations.verdicts.evidence import Run
from dashboards.tables.long import table_of
from dashboards.tables.trials import TrialRecord, places_of, read_trials
from trainers.config import explain
from trainers.errors import InputError
from trainers.system.store import Store


@dataclass(frozen=True)
class StudyRun:
    """A study as its run folder shows it now; `runs` has every locked (arm, seed), run or not."""

    store: Store
    lock: Lock
    runs: dict[tuple[str, int], Run]
    table: pd.DataFrame

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.lock.study

    @property
    def folder(self) -> str:
        """Its folder, as a prefix of keys in the store."""
        return study_folder(self.name)

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of the lock."""
        return tuple(self.lock.resolved.arms)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The planned seeds, in the order of the lock."""
        return self.lock.resolved.seeds

    @property
    def hypotheses(self) -> dict[str, Hypothesis]:
        """The locked hypotheses by id."""
        return self.lock.resolved.hypotheses

    @property
    def claims(self) -> dict[str, Claim]:
        """The locked claims by id."""
        return self.lock.resolved.claims

    @property
    def gates(self) -> dict[str, Gate]:
        """The locked manipulation checks by id."""
        return self.lock.resolved.gates


def read_study(store: Store, name: str) -> StudyRun:
    """The study of that name. Raises InputError when there is none or a file is damaged."""
    lock = read_lock(store, name)
    trials = read_trials(lock, store)
    return StudyRun(store=store, lock=lock, runs=_runs(lock, trials), table=table_of(lock, trials))


def read_lock(store: Store, name: str) -> Lock:
    """The checked `study.lock.json` of a study. Raises InputError, one line."""
    folder = study_folder(name)
    content = store.get(f"{folder}/{LOCK}")
    if content is None:
        raise InputError(f"{store.shown}/{folder} is no study: it has no {LOCK}")
    try:
        return Lock.model_validate_json(content)
    except ValidationError as error:
        raise InputError(
            f"{store.shown}/{folder}/{LOCK} is damaged: {shortened(explain(error))}; restore the "
            "file, or remove it: the next run states the study anew"
        ) from None


def study_runs(lock: Lock, store: Store) -> dict[tuple[str, int], Run]:
    """How each (arm, seed) ended, and what it measured at step 0 and at the last step, if there."""
    return _runs(lock, read_trials(lock, store))


def _runs(lock: Lock, trials: Mapping[str, TrialRecord]) -> dict[tuple[str, int], Run]:
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
            machine=_machine(trial.result),
        )
    if trial.failure is not None:
        return Run(status="failed", reason=trial.failure, start=start, end={})
    last = max(trial.metrics, default=None)
    reason = "not started" if last is None else f"not finished, last record at step {last}"
    return Run(status="missing", reason=reason, start=start, end={})


def _machine(result: Mapping[str, Any]) -> str:
    """Device and versions of a result, in words; empty for one of before they were recorded."""
    if "torch" not in result:
        return ""
    last = _machine_text(result)
    earlier = [_machine_text(one) for one in result.get("earlier_machines", ())]
    return f"{last} after {' and '.join(earlier)}" if earlier else last


def _machine_text(one: Mapping[str, Any]) -> str:
    versions = [("PyTorch", "torch"), ("CUDA", "cuda"), ("cuDNN", "cudnn")]
    parts = [f"{title} {one[name]}" for title, name in versions if one.get(name) is not None]
    return f"{one.get('device')} ({', '.join([str(one.get('device_name')), *parts])})"
