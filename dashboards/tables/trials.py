"""The trials of a study, read several at a time."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ablations.registration import Entry
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import AT_ONCE, Store

T = TypeVar("T")

_BATCH = 64
"""Trials whose values are held at once."""


def places_of(entry: Entry) -> Iterator[tuple[str, int, str]]:
    """Every planned (arm, seed, trial key), in order of arms and seeds as stated."""
    keys = {(trial.arm, trial.seed): trial.key for trial in entry.trials}
    for arm in entry.resolved.arms:
        for seed in entry.resolved.seeds:
            yield arm, seed, keys[arm, seed]


def each_place(
    entry: Entry, store: Store, read: Callable[[StoredTrial], T]
) -> Iterator[tuple[str, int, T]]:
    """Every planned (arm, seed), in order, and what `read` makes of its trial."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        every = list(places_of(entry))
        for start in range(0, len(every), _BATCH):
            places = every[start : start + _BATCH]
            trials = [StoredTrial(store, key) for _, _, key in places]
            for (arm, seed, _), found in zip(places, pool.map(read, trials), strict=True):
                yield arm, seed, found
