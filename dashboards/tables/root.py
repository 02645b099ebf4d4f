"""The studies in a run root, and how far each is."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ablations.lock import LOCK
from dashboards.tables.reading import read_lock, study_runs
from trainers.errors import InputError
from trainers.runs.trial import TrialFolder

SINGLE = "train"
"""Folder of the runs that belong to no study: `dinolab train`."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One study of a run root, or all of its single runs."""

    name: str
    arms: int = 0
    seeds: int = 0
    statuses: Mapping[str, int]
    """how many runs ended how: finished, collapsed, diverged, failed, missing"""
    started: datetime | None = None
    ended: datetime | None = None
    """when the latest result was written"""
    problem: str = ""
    """why the folder cannot be read, if it cannot"""


def summaries(root: Path) -> Iterator[Summary]:
    """Every study in `root`, by name, then its single runs; a broken one is named with its problem.

    Raises InputError when `root` is no folder.
    """
    if not root.is_dir():
        raise InputError(f"run root {root} is not there: give another --root, or run a study first")
    for lock in sorted(root.glob(f"*/{LOCK}")):
        try:
            yield _study(lock.parent)
        except InputError as error:
            yield Summary(name=lock.parent.name, statuses={}, problem=str(error))
    if (root / SINGLE / "trials").is_dir():
        yield _single(root / SINGLE)


def _study(folder: Path) -> Summary:
    lock = read_lock(folder)
    runs = study_runs(lock, folder)
    return Summary(
        name=lock.study,
        arms=len(lock.resolved.arms),
        seeds=len(lock.resolved.seeds),
        statuses=Counter(run.status for run in runs.values()),
        started=_moment(lock.created),
        ended=_latest(folder),
    )


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # locks of before did not say it
        return None


def _single(folder: Path) -> Summary:
    statuses: Counter[str] = Counter()
    try:
        for trial in (folder / "trials").iterdir():
            found = TrialFolder(trial).finished()
            statuses[found["status"] if found else "missing"] += 1
    except InputError as error:
        return Summary(name=SINGLE, statuses={}, problem=str(error))
    return Summary(name=SINGLE, statuses=statuses, ended=_latest(folder))


def _latest(folder: Path) -> datetime | None:
    times = [path.stat().st_mtime for path in folder.glob("trials/*/result.json")]
    return datetime.fromtimestamp(max(times), UTC) if times else None
