"""Trials + how each stands -> which to launch, what to wait for, or why to stop; pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

Standing = Literal["finished", "running", "held", "resting", "failed"]
"""How a trial stands: finished; running here; held elsewhere, with a lease that is alive; resting
after an attempt that failed, to be tried again; failed for good. Any other is open."""


class Keyed(Protocol):
    """What a schedule needs to know of a trial."""

    @property
    def key(self) -> str: ...


One = TypeVar("One", bound=Keyed)


@dataclass(frozen=True, kw_only=True)
class Launch(Generic[One]):
    """Trials that may start now, the first first; as many as there is room for."""

    trials: tuple[One, ...]


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Nothing may start now; how many trials run here, are held elsewhere, or rest."""

    running: int = 0
    held: int = 0
    resting: int = 0

    def __str__(self) -> str:
        parts = {
            "running here": self.running,
            "held by another dinolab": self.held,
            "to be tried again": self.resting,
        }
        return ", ".join(f"{number} {what}" for what, number in parts.items() if number)


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Nothing is left to do, and why."""

    reason: str


def next(  # noqa: A001 (`schedule.next` is what it is called everywhere)
    trials: Sequence[One], standings: Mapping[str, Standing]
) -> Launch[One] | Wait | Stop:
    """What to do next with the trials of a fixed design, which start in the order they come in.

    `standings` has the key of each trial that is not open.
    """
    if ready := tuple(trial for trial in trials if trial.key not in standings):
        return Launch(trials=ready)
    number = Counter(standings[trial.key] for trial in trials)
    if number["running"] or number["held"] or number["resting"]:
        return Wait(running=number["running"], held=number["held"], resting=number["resting"])
    if failed := number["failed"]:
        return Stop(reason=f"{failed} of {len(trials)} trials failed for good")
    return Stop(reason=f"all {len(trials)} trials are finished")
