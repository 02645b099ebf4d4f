"""RAY: a run is asked to save and to go on otherwise: with more workers, or on another machine."""

import contextlib
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ray.exceptions import RayError

from ablations.study.schema import Resources
from orchestrator.driver.messages import ask, forget, machines_of, name_of
from orchestrator.driver.standings import Launched, Standings
from orchestrator.plan import Trial
from orchestrator.resources import seats_of, worker_counts, workers_for
from trainers.system.seconds import seconds_given

SLOW = 0.5
"""Share of the usual speed of its arm below which a run is a straggler."""

PEERS = 2
"""How many other runs of an arm make its usual speed."""

LOOKED_EVERY_S = 1.0
"""How often speeds are compared, and room is looked for."""


def waits_s() -> float:
    """How long a run is left as it is, and must have to go: DINOLAB_MOVE_AFTER_S seconds (60).

    Raises ConfigError.
    """
    return seconds_given("DINOLAB_MOVE_AFTER_S", 60, 10**6)


@dataclass
class _Attempt:
    """What is known of an attempt that runs."""

    trial: Trial
    launched: Launched
    name: str
    began: float
    speed: float = math.nan
    """images a second"""
    slow_since: float | None = None
    is_straggler: bool = False
    is_asked: bool = False


class Moves:
    """Which runs of a driver are asked to go on otherwise, and which machines they then avoid.

    Nothing here raises, or waits for a run.
    """

    def __init__(
        self,
        resources: Resources,
        driver: str,
        standings: Standings,
        free: Callable[[Collection[str]], int],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`free` tells for how many trials with the fewest workers there is room now, off the
        machines that it is given, by Ray's identifiers; `say` prints a line."""
        self._resources, self._driver, self._standings = resources, driver, standings
        self._free, self._say, self._clock = free, say, clock
        self._after_s = waits_s()
        self._looked_at = self._spared_at = -math.inf
        self._running: dict[str, _Attempt] = {}
        self._speeds: dict[tuple[tuple[str, ...], int], dict[str, float]] = defaultdict(dict)
        """images a second of runs, also of those that have ended, by arms and number of workers"""
        self._steps: dict[str, int] = {}
        """how far each run has come"""
        self._left: dict[str, frozenset[str]] = {}
        """machines that a run has left as too slow; it is not to come back to one"""
        self._moving: set[str] = set()
        """keys of runs that were asked to go to another machine, and have not begun there"""

    @property
    def needs_room(self) -> bool:
        """Whether a run may go to another machine, where an idle process would be in its way."""
        return bool(self._moving) or (
            self._resources.move_stragglers
            and any(one.is_straggler for one in self._running.values())
        )

    def began(self, trial: Trial) -> None:
        """An attempt at a trial has got its process."""
        self._moving.discard(trial.key)
        if launched := self._standings.launched.get(trial.key):
            self._running[trial.key] = _Attempt(
                trial=trial,
                launched=launched,
                name=name_of(self._driver, trial.key, launched.since),
                began=self._clock(),
            )

    def came(self, trial: Trial, step: int, metrics: Mapping[str, float]) -> None:
        """An attempt has come so far."""
        attempt = self._running.get(trial.key)
        # A group tells the records again from which it goes on, and how fast others were.
        if attempt and step > self._steps.get(trial.key, -1):
            self._steps[trial.key] = step
            if (speed := metrics.get("time/images_per_s", math.nan)) > 0:
                attempt.speed = speed
                self._speeds[trial.arms, attempt.launched.workers][trial.key] = speed

    def ended(self, trial: Trial) -> None:
        """An attempt has ended; what comes of it is told by `settled`, where there is no other."""
        if attempt := self._running.pop(trial.key, None):
            with contextlib.suppress(RayError):
                forget(attempt.name)

    def settled(self, trial: Trial) -> None:
        """A run needs no other machine: it is over, or none of the others has room."""
        self._moving.discard(trial.key)

    def avoided(self, trial: Trial) -> tuple[str, ...]:
        """Machines on which the next attempt at a trial is not to run, if it can be helped."""
        return tuple(sorted(self._left[trial.key])) if trial.key in self._moving else ()

    def look(self) -> None:
        """Say which runs are slow."""
        now = self._clock()
        if now - self._looked_at < LOOKED_EVERY_S:
            return
        self._looked_at = now
        for attempt in self._running.values():
            usual = self._usual(attempt)
            if not attempt.speed < SLOW * usual:
                attempt.slow_since, attempt.is_straggler = None, False
                continue
            if attempt.slow_since is None:
                attempt.slow_since = now
            if now - attempt.slow_since >= self._after_s and not attempt.is_straggler:
                attempt.is_straggler = True
                trial, moves = attempt.trial, self._resources.move_stragglers
                advice = "" if moves else "; --move-stragglers lets it go on on another machine"
                self._say(
                    f"note: {' = '.join(trial.arms)} seed {trial.seed} is slow: "
                    f"{attempt.speed:.3g} images a second, others of its arm {usual:.3g}{advice}"
                )

    def spare(self, seats: int) -> None:
        """No trial waits, and so many more could run: use what room there is, for one at a time."""
        now = self._clock()
        if now - self._spared_at < LOOKED_EVERY_S:
            return
        self._spared_at = now
        if self._moving or any(one.is_asked for one in self._running.values()):
            return
        may = [
            one
            for one in self._running.values()
            if now - one.began >= self._after_s and self._left_s(one) > self._after_s
        ]
        why = self._slow(may) or self._wider(may, seats)
        if why:
            attempt, text = why
            with contextlib.suppress(RayError):
                ask(attempt.name, text)
                attempt.is_asked = True

    def _slow(self, may: list[_Attempt]) -> tuple[_Attempt, str] | None:
        """A straggler that can go elsewhere, and what it is told."""
        slow = [one for one in may if one.is_straggler] if self._resources.move_stragglers else []
        for attempt in slow:
            machines = _told(attempt)
            left = self._left.get(attempt.trial.key, frozenset()) | machines
            if machines and self._free(left):
                self._left[attempt.trial.key] = left
                self._moving.add(attempt.trial.key)
                return attempt, f"slow here, at {attempt.speed:.3g} images a second"
        return None

    def _wider(self, may: list[_Attempt], seats: int) -> tuple[_Attempt, str] | None:
        """One of those with the fewest workers, if it can have more, and what it is told."""
        if seats < 1 or not may or not self._resources.is_elastic:
            return None
        free = min(seats, self._free(()))
        order = sorted(may, key=lambda one: (one.launched.workers, one.began))
        for attempt in order if free else ():
            workers = attempt.launched.workers
            counts = worker_counts(attempt.trial.config, self._resources)
            seats_then = seats_of(workers, self._resources) + free
            wider = workers_for(counts, self._resources, seats_then, 1)
            if wider > workers:
                return attempt, f"there is room for {wider} workers"
        return None

    def _left_s(self, attempt: _Attempt) -> float:
        """Seconds that an attempt has to go; not a number before it has a speed."""
        config = attempt.trial.config
        steps = config.steps - self._steps.get(attempt.trial.key, 0)
        return steps * config.batch_size / attempt.speed

    def _usual(self, attempt: _Attempt) -> float:
        """Images a second of other runs of its arm, with as many workers; 0 if they are few."""
        speeds = self._speeds[attempt.trial.arms, attempt.launched.workers]
        others = [speed for key, speed in speeds.items() if key != attempt.trial.key]
        return statistics.median(others) if len(others) >= PEERS else 0.0


def _told(attempt: _Attempt) -> frozenset[str]:
    """Its machines as far as they are known."""
    with contextlib.suppress(RayError):
        return machines_of(attempt.name)
    return frozenset()
