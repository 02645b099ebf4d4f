"""The studies in a run root, and how far each is."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ablations.registration import STUDIES, Entry
from dashboards.tables.chain import read_chain
from dashboards.tables.reading import study_runs
from trainers.errors import InputError
from trainers.runs.stored_trial import TRIALS, StoredTrial
from trainers.system.store import Store

SINGLE = "train"
"""What the runs are called that no study names: those of `dinolab train`."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One study of a run root, or all of its single runs."""

    name: str
    arms: int = 0
    seeds: int = 0
    statuses: Mapping[str, int]
    """how many runs ended how: finished, collapsed, diverged, failed, missing, skipped"""
    started: datetime | None = None
    ended: datetime | None = None
    """when the latest result was written"""
    problem: str = ""
    """why the folder cannot be read, if it cannot"""


def summaries(store: Store) -> Iterator[Summary]:
    """Every study, by name, then the runs of none; a broken one is named with its problem."""
    named: set[str] = set()
    for name in store.names(STUDIES):
        try:
            chain = read_chain(store, name)
            named.update(trial.key for entry in chain for trial in entry.trials)
            yield _study(chain, store)
        except InputError as error:
            yield Summary(name=name, statuses={}, problem=str(error))
    if single := [key for key in store.names(TRIALS) if key not in named]:
        yield _single(single, store)


def _study(chain: Sequence[Entry], store: Store) -> Summary:
    entry = chain[-1]
    runs = study_runs(entry, store)
    return Summary(
        name=entry.study,
        arms=len(entry.resolved.arms),
        seeds=len(entry.resolved.seeds),
        statuses=Counter(run.status for run in runs.values()),
        started=_moment(chain[0].created),
        ended=_latest([trial.key for trial in entry.trials], store),
    )


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # locks of before may not say it
        return None


def _single(keys: list[str], store: Store) -> Summary:
    statuses: Counter[str] = Counter()
    try:
        for key in keys:
            found = StoredTrial(store, key).finished()
            statuses[found["status"] if found else "missing"] += 1
    except InputError as error:
        return Summary(name=SINGLE, statuses={}, problem=str(error))
    return Summary(name=SINGLE, statuses=statuses, ended=_latest(keys, store))


def _latest(keys: Iterable[str], store: Store) -> datetime | None:
    times = [
        entry.changed
        for key in set(keys)
        for entry in store.list(f"{TRIALS}/{key}")
        if entry.key == StoredTrial(store, key).result_key
    ]
    return datetime.fromtimestamp(max(times), UTC) if times else None
