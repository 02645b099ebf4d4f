"""How each trial stands, as one driver of a run root knows it: its own, and those of others."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator import schedule
from orchestrator.plan import Trial
from orchestrator.retry import REST_S, Failure, Retry, rest_of_root, settle
from orchestrator.schedule import Launch, Standing, Stop, Wait
from trainers.errors import InputError, StoreError
from trainers.runs.lease import Watch
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import Store

LOOKED_EVERY_S = 1.0
"""How often trials that others hold are looked at."""

WELL_AFTER_S = 3600.0
"""Trouble with a run root so long after a rest is another. On a disk that is nearly full the first
checkpoint fails, which may take a trial long."""

_GOES_ON = "; nothing is lost: the same command goes on from here"


@dataclass(frozen=True, kw_only=True)
class Launched:
    """What is known of the attempts before one that is launched, and what it gets."""

    over: tuple[int, ...]
    """that have certainly ended"""
    since: int
    """the newest; 0 when there is none"""
    workers: int = 1
    """that train it now"""


class Standings:
    """The standings of the trials that a driver, named `driver`, is to see finished.

    `say` prints a line; `finished` is told of each trial that somebody else has finished. `needed`
    gives, of a sequential design, those of `trials` that are needed as things stand.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        store: Store,
        driver: str,
        *,
        say: Callable[[str], None],
        finished: Callable[[Trial], None],
        clock: Callable[[], float] = time.monotonic,
        needed: Callable[[Mapping[str, Standing]], Sequence[Trial]] | None = None,
    ) -> None:
        self.trials = trials
        self._needed = needed
        self.known: dict[str, Standing] = {}
        self.launched: dict[str, Launched] = {}
        """of those that run here"""
        self._store, self._driver, self._say, self._clock = store, driver, say, clock
        self._finished = finished
        self._watch = Watch(clock)
        self._held: dict[str, Trial] = {}
        self._resting: dict[str, float] = {}
        self._in_a_row: dict[str, int] = {}
        self.crowded_out: set[str] = set()
        """keys of those for which there was no room as they were launched last"""
        self._looked_at = float("-inf")
        self._shared = False
        self._waits_for_others = False
        self._root_rounds = 0
        self._root_rests_until = float("-inf")

    @property
    def running(self) -> int:
        """How many trials run here."""
        return len(self.launched)

    @property
    def wanted(self) -> int:
        """How many trials are still to be run here, those included that run."""
        known = map(self.known.get, (trial.key for trial in self.trials))
        return sum(standing in (None, "running", "resting") for standing in known)

    @property
    def root_rests(self) -> bool:
        """Whether the run root is left alone, after trouble with it."""
        return self._clock() < self._root_rests_until

    def decided(self) -> Launch[Trial] | Wait | Stop:
        """What is to be done next. Raises StoreError."""
        now = self._clock()
        for key in [key for key, until in self._resting.items() if until <= now]:
            del self._resting[key], self.known[key]
        if now - self._looked_at >= LOOKED_EVERY_S:
            self._looked_at = now
            for trial in list(self._held.values()):
                self._look(trial)
        if self.root_rests:
            return Wait(running=self.running, resting=1)
        trials = self._needed(self.known) if self._needed else self.trials
        decided = schedule.next(trials, self.known)
        if isinstance(decided, Stop) and self.running:
            return Wait(running=self.running)  # what has started is not cut
        if isinstance(decided, Wait) and decided.held and not decided.running:
            if not self._waits_for_others:
                self._say(f"waiting: {decided}; taken over when its lease is over")
            self._waits_for_others = True
        return decided

    def launch(self, trial: Trial, workers: int = 1) -> Launched | None:
        """Take a trial to be run here; None when it turns out to be finished, or held elsewhere.

        Raises StoreError.
        """
        found = self._look(trial)
        if found is not None:
            found = replace(found, workers=workers)
            self.known[trial.key] = "running"
            self.crowded_out.discard(trial.key)
            self.launched[trial.key] = found
        return found

    def ended(self, trial: Trial) -> None:
        """A trial that ran here is finished."""
        self._over(trial.key, "finished")
        self._root_rounds = 0

    def left(self, trial: Trial) -> None:
        """A trial that was to run here is held by somebody else."""
        self._over(trial.key, "held")
        self._held[trial.key] = trial

    def no_room(self, trial: Trial) -> None:
        """There was no room for a trial as it was launched: it comes again, with less."""
        self._over(trial.key, "resting")
        self._resting[trial.key] = self._clock() + REST_S
        self.crowded_out.add(trial.key)

    def failed(self, trial: Trial, failure: Failure, *, new_checkpoint: bool) -> Retry | None:
        """An attempt here has failed: the one that follows, or None when it is given up.

        Raises StoreError when the run root has been in trouble for too long.
        """
        if failure.of_the_root:
            self.trouble(failure.message)
            rest = max(self._root_rests_until - self._clock(), 0.0)
            settled: object = Retry(after_s=rest, in_a_row=self._in_a_row.get(trial.key, 0))
        else:
            settled = settle(
                self._in_a_row.get(trial.key, 0), failure, new_checkpoint=new_checkpoint
            )
        if not isinstance(settled, Retry):
            self._over(trial.key, "failed")
            return None
        self._over(trial.key, "resting")
        self._in_a_row[trial.key] = settled.in_a_row
        self._resting[trial.key] = self._clock() + settled.after_s
        return settled

    def trouble(self, message: str) -> None:
        """The run root is full or does not answer: nothing is launched for a while.

        What fails within a rest is the same trouble. Raises StoreError when there has been too
        much of it.
        """
        now = self._clock()
        if now < self._root_rests_until:
            return
        if now - self._root_rests_until > WELL_AFTER_S:
            self._root_rounds = 0
        self._root_rounds += 1
        rest = rest_of_root(self._root_rounds)
        if rest is None:
            raise StoreError(f"{message.removesuffix(_GOES_ON)}{_GOES_ON}")
        if self._root_rounds == 1:
            self._say(f"note: {message} (tried again by itself for about 3 minutes)")
        self._root_rests_until = now + rest

    def _over(self, key: str, standing: Standing) -> None:
        self.known[key] = standing
        self.launched.pop(key, None)

    def _look(self, trial: Trial) -> Launched | None:
        """Note how a trial that does not run here stands; what came before when it is open."""
        stored = StoredTrial(self._store, trial.key)
        self._held.pop(trial.key, None)
        self.known.pop(trial.key, None)
        if self._is_finished(stored):
            self.known[trial.key] = "finished"
            self._finished(trial)
            return None
        last = stored.newest()
        if not last:
            return Launched(over=(), since=0)
        lease = stored.lease(last)
        is_ours = lease is not None and lease.driver == self._driver
        if is_ours or self._watch.is_over(f"{trial.key}/{last}", lease):
            return Launched(over=(last,), since=last)
        self.known[trial.key] = "held"
        self._held[trial.key] = trial
        if not self._shared:
            where = f" on {lease.holder.host}" if lease else ""
            self._say(
                f"note: another dinolab{where} is at trials of this study: the two share them"
            )
        self._shared = True
        return None

    def _is_finished(self, stored: StoredTrial) -> bool:
        try:
            return stored.finished() is not None
        except InputError as error:
            self._say(f"{error}: set aside as {stored.set_aside()}")
            return False
