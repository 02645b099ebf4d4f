"""Which runs of a study a command trains now, by arm and by seed, and with how many workers."""

import re
from collections.abc import Callable, Iterable

from orchestrator.plan import Trial
from trainers.config import nearest
from trainers.errors import InputError


def chosen_trials(
    arms: Iterable[str], seeds: Iterable[int], only: list[str] | None, given: str | None
) -> Callable[[Trial], bool]:
    """Whether a trial is of the arms `only` and the seeds `given`; all of what is not given.

    `arms` and `seeds` are those of the study. Raises InputError, one line, for one that it has not.
    """
    known = list(arms)
    for arm in only or ():
        if arm not in known:
            raise InputError(f"--only {arm}: the study has no such arm{nearest(arm, known)}")
    wanted_arms = frozenset(only or known)
    wanted_seeds = frozenset(seeds if given is None else _seeds(given, tuple(seeds)))
    return lambda trial: trial.seed in wanted_seeds and bool(wanted_arms & {*trial.arms})


def chosen_workers(given: str | None) -> tuple[int, int] | None:
    """The fewest workers of a trial, and the most where it may have more, else 0.

    Raises InputError, one line.
    """
    if given is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,3})(?:\.\.([1-9]\d{0,3}))?", given.strip())
    if not match:
        raise InputError(
            f"--workers {given}: give a number, as 2, or the fewest and the most, 2..8"
        )
    fewest, most = int(match[1]), int(match[2] or 0)
    if match[2] and most < fewest:
        raise InputError(f"--workers {given}: {fewest} is more than {most}")
    return fewest, most


def _seeds(given: str, known: tuple[int, ...]) -> list[int]:
    found: list[int] = []
    for part in given.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", part.strip())
        if not match:
            raise InputError(f"--seeds {given}: give numbers, as 0..3 or 0,2,5")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(f"--seeds {given}: {first} comes behind {last}")
        ends = {first, last} - {*known}
        if ends:
            raise InputError(
                f"--seeds {given}: the study has no seed {min(ends)}; it has "
                f"{', '.join(map(str, known))}"
            )
        found += [seed for seed in known if first <= seed <= last]
    return found
