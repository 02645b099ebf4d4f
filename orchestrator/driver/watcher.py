"""RAY: what the driver does when trials report and end: show, record, mirror, try again."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune

from orchestrator import interrupt
from orchestrator.driver.gauges import Gauges
from orchestrator.driver.moving import Moves
from orchestrator.driver.output import Output
from orchestrator.driver.progress import StudyProgress
from orchestrator.driver.reserved import Reserved
from orchestrator.driver.searching import Room
from orchestrator.driver.standings import Standings
from orchestrator.driver.worker import ENDED, OUTPUT, SHOWN, Ended
from orchestrator.plan import Trial
from orchestrator.retry import REST_S, SAID, Failure
from trainers.errors import InputError, StoreError, first_line
from trainers.runs.attempt import record_failure
from trainers.runs.lease import Watch, expires_s
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import Store

SILENT_LEASES = 5
"""Lengths of a lease for which a worker may stand still, as where its disk does not answer."""


class Watcher(tune.Callback):
    """A Ray Tune callback over the trials of one study.

    An attempt that runs longer than `time_limit_s` seconds is ended; 0: none is.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        store: Store,
        driver: str,
        standings: Standings,
        room: Room,
        moves: Moves,
        progress: StudyProgress,
        gauges: Gauges,
        mirror: Callable[[Trial], None],
        *,
        time_limit_s: float,
    ) -> None:
        self.trials = {trial.key: trial for trial in trials}
        self.store, self.driver, self.standings = store, driver, standings
        self.room, self.moves = room, moves
        self.progress, self.gauges, self.mirror = progress, gauges, mirror
        self.time_limit_s = time_limit_s
        self._began: dict[str, tuple[float, Any]] = {}
        self._ended_here: dict[str, Failure] = {}
        """attempts whose process this driver has ended, by Tune's name, and why"""
        self._watch, self._listened_at = Watch(), time.monotonic()
        self._reserved = Reserved()
        self._outputs: dict[str, Output] = {}
        self._over: deque[tuple[Trial, Ended]] = deque()
        self._known: set[str] = set()
        """Tune's names of attempts whose end is known"""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks so that it could restore itself; the run root does that here.
        return {}

    @property
    def is_full(self) -> bool:
        """Whether as many trials run as there is room for; those that have just ended do not."""
        return self.room.left(self.standings, {trial.key for trial, _ in self._over}) <= 0

    def _ours(self, ray_trial: Any) -> Trial:
        return self.trials[ray_trial.config["trial"].key]

    def on_step_end(self, iteration: int, trials: Any, **_: Any) -> None:
        """Tune's loop has gone round once."""
        interrupt.check()
        self.room.look()
        self._reserved.give_back()
        self._end_what_is_late()
        self._end_what_is_silent()
        self.moves.look()
        self.gauges.look(self.trials, self.standings.known)
        # Not where they end: what is raised there Tune takes for an error of its own.
        self.settle()

    def settle(self) -> None:
        """Record how attempts have ended, unless the run root rests.

        Raises StoreError when that has failed too often.
        """
        try:
            while self._over and not self.standings.root_rests:
                self._settle(*self._over[0])
                self._over.popleft()
        except StoreError as error:
            self.standings.trouble(str(error))

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A trial has got its process."""
        self._began[trial.trial_id] = (time.monotonic(), trial)
        self.moves.began(self._ours(trial))

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Mapping[str, Any], **_: Any
    ) -> None:
        """A trial has come some steps further, or says where it prints, or how it has ended."""
        ours = self._ours(trial)
        if OUTPUT in result:
            self._outputs[ours.key] = result[OUTPUT]
        if "step" in result:
            metrics = {name: result[name] for name in SHOWN if name in result}
            self.progress.moved(title_of(ours), int(result["step"]), ours.config.steps, metrics)
            self.gauges.moved(ours.key, ours.arms, result)
            self.moves.came(ours, int(result["step"]), result)
            self.mirror(ours)
        if ENDED in result:
            self._ended(trial, result[ENDED])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A trial has returned; it has said before how it ended."""
        _forget(trial)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """The process of a trial has died."""
        _forget(trial)
        self._reserved.somebody_died()
        ours = self._ours(trial)
        failure = self._ended_here.get(trial.trial_id) or _death(trial)
        output = self._outputs.get(ours.key)
        ended = Ended(found="failed", failure=failure, output=output.fetched() if output else "")
        self._ended(trial, ended)

    def _ended(self, ray_trial: Any, ended: Ended) -> None:
        name = ray_trial.trial_id
        self._began.pop(name, None)
        self._ended_here.pop(name, None)
        # A process may die when it has said how its attempt ended.
        if name not in self._known:
            self._known.add(name)
            ours = self._ours(ray_trial)
            self.moves.ended(ours)
            self._outputs.pop(ours.key, None)
            self._over.append((ours, ended))

    def _end_what_is_late(self) -> None:
        if not self.time_limit_s:
            return
        now = time.monotonic()
        failure = Failure(
            kind="user",
            message=f"came over its time limit of {self.time_limit_s:g} s "
            "(resources.time_limit_s, --time-limit)",
            again=True,
            over_time=True,
        )
        for began, ray_trial in self._began.values():
            if now - began > self.time_limit_s:
                self._end(ray_trial, failure)

    def _end_what_is_silent(self) -> None:
        """End attempts whose process writes its lease no more, though its machine answers."""
        now, longest_s = time.monotonic(), SILENT_LEASES * expires_s()
        if now - self._listened_at < expires_s() / 2:
            return
        self._listened_at = now
        failure = Failure(
            kind="infrastructure",
            message=f"its worker stands still: not heard of for {longest_s:g} s",
            again=True,
        )
        for name, (_, ray_trial) in self._began.items():
            stored = StoredTrial(self.store, self._ours(ray_trial).key)
            try:
                lease = stored.lease(stored.newest())
            except StoreError:
                # Nobody can be heard.
                self._watch = Watch()
                return
            if lease is None or lease.driver != self.driver or lease.outcome:
                continue
            if self._watch.quiet_s(name, lease) > longest_s:
                self._end(ray_trial, failure)

    def _end(self, ray_trial: Any, failure: Failure) -> None:
        actor, name = ray_trial.temporary_state.ray_actor, ray_trial.trial_id
        if actor and name not in self._ended_here:
            self._ended_here[name] = failure
            ray.kill(actor)

    def _settle(self, trial: Trial, ended: Ended) -> None:
        """Record how an attempt ended, and say it. Raises StoreError."""
        stored = StoredTrial(self.store, trial.key)
        if ended.found == "no room":
            self.moves.settled(trial)
            self.standings.no_room(trial)
            again = f"tried again in {REST_S:g} s with the fewest workers, on any machine"
            self.progress.note(title_of(trial), f"could not start: {ended.failure}; {again}")
            return
        if ended.failure is None or _is_finished(stored):
            self.moves.settled(trial)
            if ended.found == "held":
                self.standings.left(trial)
                return
            self.standings.ended(trial)
            self.tell(trial)
            return
        failure, launched = ended.failure, self.standings.launched[trial.key]
        new_checkpoint, where = False, ""
        if not failure.of_the_root:
            number = record_failure(
                stored,
                since=launched.since,
                driver=self.driver,
                kind=failure.kind,
                message=failure.message,
                text=ended.text,
                output=ended.output,
                outcome="interrupted" if failure.interrupted else "failed",
            )
            if number:
                where = f"; {stored.shown}/attempts/{number:04d}/log.txt says more"
                new_checkpoint = _has_saved(stored, number)
        retry = self.standings.failed(trial, failure, new_checkpoint=new_checkpoint)
        if retry is None:
            self.moves.settled(trial)
            self.progress.ended(title_of(trial), f"failed: {failure}{where}")
            self.mirror(trial)
        elif not failure.of_the_root:
            again = f"tried again in {retry.after_s:g} s"
            what = (
                f"interrupted: {failure.message}"
                if failure.interrupted
                else f"an attempt failed: {failure}"
            )
            self.progress.note(title_of(trial), f"{what}{where}; {again}")

    def tell(self, trial: Trial) -> None:
        """Say how a trial ended, and mirror it."""
        self.progress.ended(title_of(trial), outcome(StoredTrial(self.store, trial.key)))
        self.mirror(trial)


def title_of(trial: Trial) -> str:
    """A trial, for people."""
    return f"{' = '.join(trial.arms)} seed {trial.seed}"


def _forget(ray_trial: Any) -> None:
    """Drop the statistics that Tune keeps of every metric of every trial: most of its memory."""
    ray_trial.run_metadata.metric_analysis = {}
    ray_trial.run_metadata.metric_n_steps = {}


def _is_finished(stored: StoredTrial) -> bool:
    try:
        return stored.finished() is not None
    except InputError:  # the standings sets it aside
        return False


def _has_saved(stored: StoredTrial, number: int) -> bool:
    """Whether an attempt has made a checkpoint beyond the one it went on from."""
    lease = stored.lease(number)
    first = lease.from_step if lease else -1
    return any(state.attempt == number and state.step > first for state in stored.states())


def _death(ray_trial: Any) -> Failure:
    """The failure of an attempt whose process has died."""
    error: Exception | None = None
    # Tune keeps it on this machine alone.
    with contextlib.suppress(Exception):
        error = cloudpickle.loads(Path(ray_trial.pickled_error_file).read_bytes())
    preempted = bool(getattr(error, "preempted", False))
    said = first_line(error) if error else "Ray does not say why"
    return Failure(
        kind="infrastructure",
        message="its machine was taken away" if preempted else f"the worker died: {said}",
        again=True,
        interrupted=preempted,
    )


def outcome(trial: StoredTrial) -> str:
    """How a trial ended, in words. Raises StoreError."""
    try:
        result = trial.finished()
        failure = None if result else trial.failed()
    except InputError as error:
        return f"failed: {error}"
    if result is None:
        if failure is None:
            return "failed: it left no result"
        whose = f" ({SAID[failure.kind]})" if failure.kind in SAID else ""
        return f"failed: {failure.message}{whose}"
    took = f"{result['wall_s']:.0f} s"
    if result["resumed_at"]:
        took += f", resumed at step {result['resumed_at']}"
    took += "".join(f"; {line}" for line in result.get("damaged", ()))
    reason = f" {result['reason']}" if result["reason"] else ""
    return f"{result['status']}{reason} ({took})"
