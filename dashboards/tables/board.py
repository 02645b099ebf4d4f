"""How far each trial of a run root is, as anyone who sees the root can tell."""

import time
import types
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from ablations.registration import STUDIES, Entry
from ablations.verdicts.evidence import Run
from dashboards.tables.chain import read_chain, read_entry
from dashboards.tables.reading import study_runs
from dashboards.tables.trials import places_of
from trainers.errors import InputError
from trainers.runs.lease import Lease, expires_s
from trainers.runs.stored_trial import TRIALS, StoredTrial
from trainers.system.store import AT_ONCE, Store

State = Literal[
    "finished", "collapsed", "diverged", "running", "silent", "failed", "interrupted", "waiting",
    "damaged", "skipped", "ended",
]  # fmt: skip
"""`silent`: nobody has said how the attempt ended, and its holder is not heard any more. `skipped`:
a sequential design had no need of it. `ended`: with a result that may not be told
yet."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A trial as it is now."""

    key: str
    state: State
    step: int = 0
    """updates done, of the newest attempt"""
    steps: int = 0
    """updates of the whole run; 0 while no attempt has been made"""
    rate: float = 0.0
    """updates a second, of late"""
    attempts: int = 0
    where: str = ""
    """machine and process of the newest attempt"""
    heard_s: float = 0.0
    """seconds since it was last heard of, by the clocks of store and reader"""
    reason: str = ""
    """in words, of what is not `finished`, `running` or `waiting`"""


def progress_of(trial: StoredTrial) -> Progress:
    """How far a trial is. A damaged result is a state, not an error."""
    numbers = trial.attempts()
    if not numbers:
        return Progress(key=trial.key, state="waiting")
    try:
        result = trial.finished()
    except InputError as error:
        return Progress(key=trial.key, state="damaged", attempts=len(numbers), reason=str(error))
    if result is not None:
        return Progress(
            key=trial.key,
            state=result["status"],
            step=result["step"],
            steps=result["steps"],
            attempts=len(numbers),
            reason=str(result.get("reason", "")),
        )
    lease, heard = trial.lease(numbers[-1]), _heard_s(trial, numbers[-1])
    state, reason = _unfinished(trial, lease, heard)
    holder = None if lease is None else lease.holder
    return Progress(
        key=trial.key,
        state=state,
        step=0 if lease is None else lease.step,
        steps=0 if lease is None else lease.steps,
        rate=0.0 if lease is None else lease.rate,
        attempts=len(numbers),
        where="" if holder is None else f"{holder.host}, process {holder.pid}",
        heard_s=heard,
        reason=reason,
    )


def _unfinished(trial: StoredTrial, lease: Lease | None, heard_s: float) -> tuple[State, str]:
    if lease is not None and not lease.outcome:
        if lease.holder.is_gone():
            return "silent", "its process has ended without a word; the next run takes it over"
        if heard_s < expires_s():
            return "running", ""
    if lease is None or not lease.outcome:
        return "silent", f"not heard of for {heard_s:.0f} s; the next run takes it over"
    if lease.outcome == "failed":
        failure = trial.failed()
        return "failed", "it left no message" if failure is None else failure.message
    return "interrupted", f"{lease.outcome} at step {lease.step}; the next run goes on from there"


def _heard_s(trial: StoredTrial, number: int) -> float:
    key = f"{trial.attempt_folder(number)}/lease.json"
    times = [e.changed for e in trial.store.list(trial.attempt_folder(number)) if e.key == key]
    return max(0.0, time.time() - times[0]) if times else 0.0


def board(entry: Entry, store: Store) -> dict[tuple[str, int], Progress]:
    """Progress of every (arm, seed) of a study, in its order; identical arms share a trial."""
    progress = progress_of_all(entry, store)
    return (
        progress if entry.resolved.design is None else skipped(progress, study_runs(entry, store))
    )


def progress_of_all(
    entry: Entry, store: Store, known: Mapping[str, Progress] = types.MappingProxyType({})
) -> dict[tuple[str, int], Progress]:
    """The same, but that nothing is skipped; trials that are `known` by key are not read again."""
    places = list(places_of(entry))
    begun = set(store.names(TRIALS)) - known.keys()
    keys = sorted(begun.intersection(key for _, _, key in places))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        read = pool.map(lambda key: progress_of(StoredTrial(store, key)), keys)
        found = {**known, **dict(zip(keys, read, strict=True))}
    return {
        (arm, seed): found.get(key) or Progress(key=key, state="waiting")
        for arm, seed, key in places
    }


def skipped(
    progress: Mapping[tuple[str, int], Progress], runs: Mapping[tuple[str, int], Run]
) -> dict[tuple[str, int], Progress]:
    """`progress`, where `runs` say what a sequential design had no need of."""
    return {
        place: replace(one, state="skipped", reason=runs[place].reason)
        if runs[place].status == "skipped"
        else one
        for place, one in progress.items()
    }


def studies_of(store: Store) -> tuple[list[list[Entry]], list[str]]:
    """The registrations of every study that can be read, and a line for each of the others."""
    chains, problems = [], []
    for name in store.names(STUDIES):
        try:
            chains.append(read_chain(store, name))
        except InputError as error:
            problems.append(str(error))
    return chains, problems


def find_trial(store: Store, given: str) -> StoredTrial:
    """The trial that is meant by its key, the beginning of it, or STUDY/ARM/SEED.

    Raises InputError, one line, when none is, or several are.
    """
    if given.count("/") == 2:
        study, arm, seed = given.split("/")
        keys = {(a, str(s)): key for a, s, key in places_of(read_entry(store, study))}
        if (arm, seed) in keys:
            return StoredTrial(store, keys[arm, seed])
        arms = ", ".join(dict.fromkeys(a for a, _ in keys))
        seeds = ", ".join(dict.fromkeys(s for _, s in keys))
        raise InputError(f"{given}: {study} has arms {arms} and seeds {seeds}")
    found = [key for key in store.names(TRIALS) if key.startswith(given)]
    if len(found) != 1 or not given:
        what = "no trial has a key that begins so" if not found else _several(found)
        raise InputError(
            f"{given}: {what}; give a key of {store.shown}/{TRIALS}, or STUDY/ARM/SEED"
        )
    return StoredTrial(store, found[0])


def _several(keys: Iterable[str]) -> str:
    return f"several trials have keys that begin so: {', '.join(list(keys)[:5])}"
