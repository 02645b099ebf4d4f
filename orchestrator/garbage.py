"""What of a run root nothing needs any more."""

import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.registration import REGISTRATIONS, STUDIES, study_folder
from dashboards.tables.board import progress_of
from dashboards.tables.chain import read_chain
from trainers.runs.lease import expires_s
from trainers.runs.stored_trial import TRIALS, StoredTrial
from trainers.system.store import Entry, Store


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Objects that go together."""

    what: str
    """their folder"""
    why: str
    entries: Sequence[Entry]
    is_trial: bool = False
    """whether it is a whole trial"""

    def is_as_found(self, store: Store) -> bool:
        """Whether nothing was written since: a run of its own may have gone on."""
        before, now = set(self.entries), set(store.list(self.what))
        return before <= now if not self.is_trial else before == now

    def delete(self, store: Store) -> None:
        """Delete them: first what makes the others count, so that a kill leaves no half of it."""
        for entry in sorted(self.entries, key=lambda one: not one.key.endswith("/result.json")):
            store.delete(entry.key)
        if store.local is not None:
            _tidy(store.local / self.what)


def _tidy(folder: Path) -> None:
    """Delete what a kill has left half-written, which is no object, and folders without files."""
    for hidden in sorted(folder.rglob(".*")):
        shutil.rmtree(hidden, ignore_errors=True)
        with contextlib.suppress(OSError):
            hidden.unlink()
    for one in [*sorted(folder.rglob("*/"), reverse=True), folder]:
        with contextlib.suppress(OSError):
            one.rmdir()


def garbage(store: Store, *, single: bool) -> list[Garbage]:
    """Trials that no study names, attempts that no result rests on, results that were set aside.

    Without `single` runs that were trained by themselves stay. Whatever is being trained stays: a
    trial that seems silent is watched for as long as a lease lasts.
    A trial that only an earlier registration names stays: what was known rests on it.
    Raises InputError, one line, when a registration is damaged: what it names is unknown then.
    """
    # In this order: a trial that is begun meanwhile is not among them, or its study names it.
    keys = store.names(TRIALS)
    named = _named(store)
    found, silent = [], []
    for key in keys:
        trial = StoredTrial(store, key)
        progress = progress_of(trial)
        if progress.state == "running":
            continue
        if key in named or (_is_single(trial) and not single):
            found += _of_a_trial(trial, has_result=progress.state not in _WITHOUT_RESULT)
        elif progress.state == "silent":
            silent.append(trial)
        else:
            found.append(_whole(trial))
    return found + [_whole(trial) for trial in _unchanged(silent)]


def delete(found: Sequence[Garbage], store: Store) -> list[Garbage]:
    """Delete it, but for trials that a study has come to name since, or that have gone to work.

    Returns what is deleted.
    """
    deleted, stated, named = [], frozenset[str](), set[str]()
    for one in found:
        # Just before, each time: a study may be registered while others are deleted.
        if (now := _registrations(store)) != stated:
            stated, named = now, _named(store)
        if one.what.removeprefix(f"{TRIALS}/") not in named and one.is_as_found(store):
            one.delete(store)
            deleted.append(one)
    return deleted


def _named(store: Store) -> set[str]:
    """Keys of the trials that any registration names."""
    return {
        trial.key
        for name in store.names(STUDIES)
        for entry in read_chain(store, name)
        for trial in entry.trials
    }


def _registrations(store: Store) -> frozenset[str]:
    return frozenset(
        entry.key
        for name in store.names(STUDIES)
        for entry in store.list(f"{study_folder(name)}/{REGISTRATIONS}")
    )


def _whole(trial: StoredTrial) -> Garbage:
    entries = trial.store.list(trial.folder)
    return Garbage(what=trial.folder, why="no study names it", entries=entries, is_trial=True)


def _unchanged(silent: Sequence[StoredTrial]) -> list[StoredTrial]:
    """Those whose newest lease does not change while it is watched: clocks of machines differ."""
    leases = [trial.lease(max(trial.attempts())) for trial in silent]
    if any(lease is None or not lease.holder.is_gone() for lease in leases):
        time.sleep(expires_s())
    return [
        trial
        for trial, lease in zip(silent, leases, strict=True)
        if trial.lease(max(trial.attempts())) == lease
    ]


_WITHOUT_RESULT = ("silent", "failed", "interrupted", "waiting", "damaged")


def _is_single(trial: StoredTrial) -> bool:
    leases = [trial.lease(number) for number in trial.attempts()]
    return any(lease is not None and not lease.driver for lease in leases)


def _of_a_trial(trial: StoredTrial, *, has_result: bool) -> list[Garbage]:
    found = []
    if set_aside := trial.store.list(f"{trial.folder}/damaged"):
        what = f"{trial.folder}/damaged"
        found.append(Garbage(what=what, why="set aside as damaged", entries=set_aside))
    result = trial.finished() if has_result else None
    if result is None:
        return found
    needed = {str(name) for name in result.get("checkpoints", {}).values()}
    needed |= set(result.get("of_images", {}))
    for number in trial.attempts():
        if number == result["attempt"]:
            continue
        folder = trial.attempt_folder(number)
        entries = [
            entry
            for entry in trial.store.list(folder)
            if not any(_belongs(entry.key, f"{trial.folder}/{name}") for name in needed)
        ]
        if entries:
            why = f"attempt {result['attempt']} has the result"
            found.append(Garbage(what=folder, why=why, entries=entries))
    return found


def _belongs(key: str, checkpoint: str) -> bool:
    """Whether an object is a checkpoint, a part of it, or its manifest."""
    manifest = f"{checkpoint.removesuffix('.safetensors')}.json"
    return key in (checkpoint, manifest) or key.startswith(f"{checkpoint}/")
