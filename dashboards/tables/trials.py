"""The trials of a study, read several at a time."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ablations.lock import Lock
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import Store

T = TypeVar("T")

_AT_ONCE = 8
"""Trials that are read at once: files and object storage let one wait."""

_BATCH = 64
"""Trials whose values are held at once."""


def places_of(lock: Lock) -> Iterator[tuple[str, int, str]]:
    """Every planned (arm, seed, trial key), in order of arms and seeds as locked."""
    keys = {(trial.arm, trial.seed): trial.key for trial in lock.trials}
    for arm in lock.resolved.arms:
        for seed in lock.resolved.seeds:
            yield arm, seed, keys[arm, seed]


def each_place(
    lock: Lock, store: Store, read: Callable[[StoredTrial], T]
) -> Iterator[tuple[str, int, T]]:
    """Every planned (arm, seed), in order, and what `read` makes of its trial."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        every = list(places_of(lock))
        for start in range(0, len(every), _BATCH):
            places = every[start : start + _BATCH]
            trials = [StoredTrial(store, key) for _, _, key in places]
            for (arm, seed, _), found in zip(places, pool.map(read, trials), strict=True):
                yield arm, seed, found
