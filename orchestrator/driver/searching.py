"""RAY: Tune asks which trial is next, and whether there is room for it."""

import time
from collections.abc import Callable, Collection
from typing import Any

from ray.exceptions import RayError
from ray.tune.search import Searcher

from ablations.study.schema import Resources
from orchestrator import interrupt
from orchestrator.driver.cluster import refuse_lost
from orchestrator.driver.nodes import nodes_addable, nodes_free, nodes_there
from orchestrator.driver.standings import Launched, Standings
from orchestrator.plan import Trial
from orchestrator.resources import (
    Placement,
    place,
    seats_of,
    trials_free,
    widest,
    worker_counts,
    workers_for,
)
from orchestrator.schedule import Launch, Stop, Wait
from trainers.errors import InputError, StoreError

LOOKED_EVERY_S = 2.0
"""How often the cluster is looked at."""

MOST_WAITING = 64
"""Trials that ask for machines which a cluster has yet to add."""


class Room:
    """How many trials may have been launched at once; follows the cluster while it runs.

    Trials with the fewest workers: one with more takes the place of several.
    """

    def __init__(
        self,
        resources: Resources,
        placement: Placement,
        most: int | None,
        say: Callable[[str], None],
        share: Callable[[int], int] = lambda seats: seats,
    ) -> None:
        """`placement` is what workers ask for; `share` tells how many of so many are not left to
        other drivers."""
        self._resources, self._placement = resources, placement
        self._most, self._say, self._share = most, say, share
        self.number, self._looked_at = 0, float("-inf")
        self._said = ""

    def look(self) -> int:
        """The number. Raises RayGone, one line, when the cluster is gone."""
        now = time.monotonic()
        if now - self._looked_at >= LOOKED_EVERY_S:
            self._looked_at = now
            refuse_lost()
            self.number = self._placed()
        return self.number

    def _placed(self) -> int:
        addable = nodes_addable(self._resources)
        try:
            made = place(self._resources, nodes_there(), addable)
        except InputError as error:
            self._once(f"note: waiting, since {error}")
            return 0
        if not made.concurrent:
            self._once("note: waiting for the cluster to add machines")
        # Shares are of all that is there, whatever each driver limits itself to.
        share = self._share(min(made.attainable, made.concurrent + MOST_WAITING))
        return share if self._most is None else min(share, self._most * widest(self._resources))

    def workers(self, trial: Trial, standings: Standings, waiting: int) -> int:
        """With how many workers a trial is launched now, 0 if it is not; `waiting` have none."""
        left, running = self.left(standings), standings.running
        at_once = waiting if self._most is None else min(waiting, self._most - running)
        if left < 1 or at_once < 1:
            return 0
        counts = worker_counts(trial.config, self._resources)
        if len(counts) == 1 or trial.key in standings.crowded_out:
            return counts[0]
        # More than the fewest only where there is room now: others may have it, or it may never be.
        return workers_for(counts, self._resources, min(left, self.free()), at_once)

    def free(self, but: Collection[str] = ()) -> int:
        """For how many trials with the fewest workers there is room now, off the machines `but`.

        Nothing where the head does not answer.
        """
        try:
            free = nodes_free(but=but)
        except RayError:
            return 0
        return trials_free(free, self._resources, self._placement)

    def left(self, standings: Standings, over: Collection[str] = ()) -> int:
        """How many of its number are not taken, as it was when looked at last.

        Those whose keys are in `over` take nothing any more.
        """
        launched = standings.launched.items()
        seats = [seats_of(one.workers, self._resources) for key, one in launched if key not in over]
        return self.number - sum(seats)

    def _once(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self._say(line)


class Scheduled(Searcher):
    """A searcher that asks the schedule: a trial to launch, None to wait, or that all is over."""

    def __init__(
        self,
        standings: Standings,
        room: Room,
        assigned: Callable[[Trial, Launched], object],
        settle: Callable[[], None],
        spare: Callable[[int], None],
    ) -> None:
        """`spare` is told for how many trials more there is place while none waits."""
        super().__init__()
        self.standings, self.room = standings, room
        self.assigned, self.settle, self.spare = assigned, settle, spare

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles it so that it could restore itself; the run root does that here.
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next configuration, None, or FINISHED."""
        # Tune asks in a loop of its own while nothing runs, for up to 600 s: what ended when the
        # run root was away would be known only after it.
        interrupt.check()
        self.settle()
        self.room.look()
        try:
            while isinstance(decided := self.standings.decided(), Launch):
                trial, standings = decided.trials[0], self.standings
                workers = self.room.workers(trial, standings, len(decided.trials))
                if not workers:
                    return None
                if launched := standings.launch(trial, workers):
                    return {"trial": self.assigned(trial, launched)}
        except StoreError as error:
            self.standings.trouble(str(error))
            return None
        if isinstance(decided, Wait) and decided.running and not decided.resting:
            self.spare(self.room.left(self.standings))
        return Searcher.FINISHED if isinstance(decided, Stop) else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """What follows is told by the watcher."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the run root holds what a driver must know."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""
