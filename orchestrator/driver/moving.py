"""RAY: a run is asked to save and to go on otherwise: with more workers, or on another machine."""

import contextlib
import math
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ray.exceptions import RayError
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

from ablations.study.checks import worker_counts
from ablations.study.schema import Resources
from orchestrator.driver.nodes import nodes_there
from orchestrator.driver.standings import Standings
from orchestrator.plan import Trial
from orchestrator.resources import place, workers_for
from trainers.errors import ConfigError, InputError

SLOW = 0.5
"""Share of the usual speed of its arm below which a run is a straggler."""

PEERS = 2
"""How many other runs of an arm make its usual speed."""

LOOKED_EVERY_S = 1.0
"""How often speeds are compared."""

_NAMESPACE = "dinolab_moves"


def waits_s() -> float:
    """How long a run is left as it is, and must have to go: DINOLAB_MOVE_AFTER_S seconds (60).

    Raises ConfigError.
    """
    given = os.environ.get("DINOLAB_MOVE_AFTER_S") or "60"
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 1e6:
        raise ConfigError(f"DINOLAB_MOVE_AFTER_S={given}: give seconds, from 1 to 1000000")
    return seconds


def name_of(driver: str, key: str, since: int) -> str:
    """What the attempt of `driver` that follows number `since` is called on the cluster."""
    return f"{driver}/{key}/{since}"


def ask(name: str, why: str) -> None:
    """Ask an attempt to save, and to end. Raises RayError."""
    _internal_kv_put(f"{name}?", why, overwrite=True, namespace=_NAMESPACE)


def asked(name: str) -> str:
    """Why an attempt has been asked to end; empty if it has not. Raises RayError."""
    return (_internal_kv_get(f"{name}?", namespace=_NAMESPACE) or b"").decode()


def tell_machine(name: str, machine: str) -> None:
    """Tell that a worker of an attempt runs on a machine, by Ray's identifier. Raises RayError."""
    _internal_kv_put(f"{name}@{machine}", b"", overwrite=True, namespace=_NAMESPACE)


def machines_of(name: str) -> frozenset[str]:
    """The machines that the workers of an attempt run on, as far as told. Raises RayError."""
    start = f"{name}@"
    found = _internal_kv_list(start, namespace=_NAMESPACE)
    return frozenset(one.decode().removeprefix(start) for one in found)


def forget(name: str) -> None:
    """Take away what the cluster knows of an attempt. Raises RayError."""
    for start in (f"{name}?", f"{name}@"):
        for one in _internal_kv_list(start, namespace=_NAMESPACE):
            _internal_kv_del(one, namespace=_NAMESPACE)


@dataclass
class _Attempt:
    """What is known of an attempt that runs."""

    trial: Trial
    name: str
    workers: int
    seats: int
    began: float
    speed: float = math.nan
    """images a second"""
    step: int = 0
    slow_since: float | None = None
    is_straggler: bool = False
    is_asked: bool = False

    @property
    def left_s(self) -> float:
        """Seconds that it has to go; not a number before it has a speed."""
        steps = self.trial.config.steps - self.step
        return steps * self.trial.config.batch_size / self.speed


class Moves:
    """Which runs of a driver are asked to go on otherwise, and which machines they then avoid.

    Nothing here raises, or waits for a run.
    """

    def __init__(
        self,
        resources: Resources,
        driver: str,
        standings: Standings,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`say` prints a line."""
        self._resources, self._driver, self._standings = resources, driver, standings
        self._say, self._clock, self._after_s = say, clock, waits_s()
        self._looked_at = -math.inf
        self._running: dict[str, _Attempt] = {}
        self._speeds: dict[tuple[tuple[str, ...], int], dict[str, float]] = defaultdict(dict)
        """images a second of runs, also of those that have ended, by arms and number of workers"""
        self._avoided: dict[str, frozenset[str]] = {}

    @property
    def is_moving(self) -> bool:
        """Whether a run is on its way to another machine, where a place must be kept for it."""
        return not self._avoided.keys() <= self._running.keys()

    def began(self, trial: Trial) -> None:
        """An attempt at a trial has got its process."""
        self._avoided.pop(trial.key, None)
        if launched := self._standings.launched.get(trial.key):
            self._running[trial.key] = _Attempt(
                trial=trial,
                name=name_of(self._driver, trial.key, launched.since),
                workers=launched.workers,
                seats=launched.seats,
                began=self._clock(),
            )

    def came(self, trial: Trial, step: int, metrics: Mapping[str, float]) -> None:
        """An attempt has come so far."""
        if attempt := self._running.get(trial.key):
            attempt.step = step
            if (speed := metrics.get("time/images_per_s", math.nan)) > 0:
                attempt.speed = speed
                self._speeds[trial.arms, attempt.workers][trial.key] = speed

    def ended(self, trial: Trial, *, again: bool) -> None:
        """An attempt has ended, and there is to be another, or not."""
        if not again:
            self._avoided.pop(trial.key, None)
        if attempt := self._running.pop(trial.key, None):
            with contextlib.suppress(RayError):
                forget(attempt.name)

    def avoided(self, trial: Trial) -> tuple[str, ...]:
        """Machines on which the next attempt at a trial is not to run; none if no other is left."""
        machines = self._avoided.get(trial.key, frozenset())
        if machines and not self._place_off(machines):
            del self._avoided[trial.key]
            return ()
        return tuple(sorted(machines))

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
        """So many more trials could run, and none waits: use the place, for one run at a time."""
        if seats < 1 or any(one.is_asked for one in self._running.values()):
            return
        for attempt in sorted(self._running.values(), key=lambda one: (one.workers, one.began)):
            if why := self._why(attempt, seats):
                with contextlib.suppress(RayError):
                    ask(attempt.name, why)
                    attempt.is_asked = True
                return

    def _why(self, attempt: _Attempt, seats: int) -> str:
        """What an attempt is told when it is to end: there is place elsewhere, or more of it."""
        if self._clock() - attempt.began < self._after_s or not attempt.left_s > self._after_s:
            return ""
        if attempt.is_straggler and self._resources.move_stragglers:
            machines = _told(attempt)
            others = [one for one in self._running.values() if not _told(one) <= machines]
            if machines and self._place_off(machines) > sum(one.seats for one in others):
                self._avoided[attempt.trial.key] = machines
                return f"slow here, at {attempt.speed:.3g} images a second"
        counts = worker_counts(attempt.trial.config, self._resources)
        wider = workers_for(counts, self._resources, attempt.seats + seats, 1)
        return f"there is room for {wider} workers" if wider > attempt.workers else ""

    def _place_off(self, machines: frozenset[str]) -> int:
        """How many trials with the fewest workers all other machines hold."""
        try:
            return place(self._resources, nodes_there(but=machines)).concurrent
        except (InputError, RayError):
            return 0

    def _usual(self, attempt: _Attempt) -> float:
        """Images a second of other runs of its arm, with as many workers; 0 if they are few."""
        speeds = self._speeds[attempt.trial.arms, attempt.workers]
        others = [speed for key, speed in speeds.items() if key != attempt.trial.key]
        return statistics.median(others) if len(others) >= PEERS else 0.0


def _told(attempt: _Attempt) -> frozenset[str]:
    """Its machines as far as they are known."""
    with contextlib.suppress(RayError):
        return machines_of(attempt.name)
    return frozenset()
