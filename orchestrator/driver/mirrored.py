"""The mirror as a driver sees it: beside training, in a thread that stops nothing and no one."""

import importlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from orchestrator.tracking.where import has_store, logs_teachers
from trainers.errors import DinolabError, StoreError
from trainers.system.store import Store

if TYPE_CHECKING:
    from dashboards.tables.reading import StudyRun
    from orchestrator.tracking.mirror import Mirror

EVERY_S = 2.0
"""Between two looks at what has come: so a look finds more records, and takes fewer requests."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""After an error, which doubles as long as errors go on."""

DRAIN_S = 60.0
"""How long the end of a study waits for what is not mirrored yet."""

INTERRUPTED_S = 2.0
"""The same when it was interrupted, or has failed."""

_STUDY = ""
"""What waits, beside keys of trials: the study's means and files."""

_PICTURES, _TEACHER = "pictures of ", "teacher of "
"""What that begins with which waits until no number does: pictures and the teacher of a trial."""


class Mirrored:
    """Mirrors trials and the study in a thread of its own; never raises, never makes one wait.

    One trial waits at most once, however often it moves. An error is said once, and tried again
    with longer and longer pauses. A context manager, whose end waits for what is left. Raises
    InputError, when it is made, where what is to be mirrored is not said as it can be.
    """

    def __init__(self, study: str, store: Store, console: Console) -> None:
        self.study, self.store, self.console = study, store, console
        self._logs_teachers = logs_teachers()
        self._change = threading.Condition()
        self._waiting: dict[str, Callable[[Mirror], None]] = {}
        self._seen: dict[str, Callable[[Mirror], None]] = {}
        """all that ever waited: another store, or a restored one, gets all of it"""
        self._is_closing = False
        self._is_over = False
        """what it would say now, nobody waits for"""
        self._is_failing = False
        self._is_at_work = False
        self._count = 0
        """of what was mirrored"""
        self._damaged: set[str] = set()
        self._said: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        if has_store(store.local):
            self._thread.start()
        else:
            console.print(
                "no mirror in MLflow: a run root on object storage has no store of its own; "
                "MLFLOW_TRACKING_URI gives one"
            )

    def sync(self, key: str, arms: Sequence[str], seed: int) -> None:
        """A trial has moved on, or ended; `arms` are those that it stands for."""
        self._add(key, lambda mirror: mirror.sync(key, arms, seed))
        self._add(_PICTURES + key, lambda mirror: mirror.log_pictures(key, arms))
        if self._logs_teachers:
            self._add(_TEACHER + key, lambda mirror: mirror.log_teacher(key, arms))

    def finish(self, study: "StudyRun", verdicts: Mapping[str, Any]) -> None:
        """The files of the study are written, and its means can be computed."""
        self._add(_STUDY, lambda mirror: mirror.finish(study, verdicts))

    def close(self, within_s: float = DRAIN_S, *, patient: bool = False) -> bool:
        """Mirror what waits, and say in one line what is left. Returns whether nothing is.

        It takes `within_s` seconds at most; if `patient`, so long after the last that was mirrored,
        without the time of what is being mirrored while MLflow answers.
        """
        with self._change:
            self._is_closing = True
            self._change.notify_all()
        if self._is_failing and within_s > INTERRUPTED_S:
            self.console.print(f"waiting for MLflow, {within_s:.0f} s at most")
        done, until = self._count, time.monotonic() + within_s
        while self._thread.is_alive() and (left_s := until - time.monotonic()) > 0:
            self._thread.join(min(left_s, 1.0))
            if patient and (self._count != done or (self._is_at_work and not self._is_failing)):
                done, until = self._count, time.monotonic() + within_s
        with self._change:
            left = set(self._waiting) | self._damaged
            # A server that answers later is not written to by what nobody waits for any more.
            self._waiting, self._seen = {}, {}
            self._is_over = True
        if left and has_store(self.store.local):
            waiting = {one for one in left if not one.startswith((_PICTURES, _TEACHER))}
            runs = len(waiting - {_STUDY})
            parts = [f"{runs} run{'s' * (runs != 1)}"] * (runs > 0)
            parts += ["means and files of the study"] * (_STUDY in left)
            for late, what in ((_PICTURES, "pictures"), (_TEACHER, "teachers")):
                keys = {one.removeprefix(late) for one in left if one.startswith(late)} - waiting
                parts += [f"{what} of {len(keys)} run{'s' * (len(keys) != 1)}"] * (len(keys) > 0)
            self.console.print(
                f"not in MLflow yet: {' and '.join(parts)}; `dinolab mirror {self.study}` "
                "writes what is missing"
            )
        return not left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(DRAIN_S if error is None else INTERRUPTED_S)

    def _add(self, name: str, work: "Callable[[Mirror], None]") -> None:
        with self._change:
            self._waiting[name] = self._seen[name] = work
            self._change.notify_all()

    def _work(self) -> None:
        mirror: Mirror | None = None
        pause = FIRST_PAUSE_S
        while found := self._next():
            # Here: these take seconds to import, for which neither the first trial nor, as the last
            # one does, the report has to wait.
            importlib.import_module("dashboards.study.files")
            from orchestrator.tracking import mirror as mlflow
            from orchestrator.tracking.store import explained, tracking_uri

            name, work = found
            self._is_at_work = True
            try:
                if mirror is not None and mirror.is_gone():
                    self._say(mirror.gone)
                    mirror = None
                if mirror is None:
                    mirror = mlflow.Mirror(self.study, self.store, self.console.print)
                    # That store may lack what another one got.
                    self._all_again()
                work(mirror)
                self._damaged.discard(name)
                self._done(name, work)
                self._count += 1
            except StoreError as error:
                self._say(f"not in MLflow yet: {error}")
            except DinolabError as error:
                self._say(f"not in MLflow yet: {error}")
                if mirror is not None:
                    # A file of that trial is damaged, which is not MLflow's fault.
                    self._damaged.add(name)
                    self._done(name, work)
                    continue
            except Exception as error:  # noqa: BLE001 (MLflow passes on errors of many libraries)
                if mirror is not None and mirror.is_gone():
                    # Deleted in the middle of that work, which is the first of the next store.
                    continue
                self._say(
                    f"{explained(tracking_uri(self.store.local), error)}; training goes on, and "
                    "this is tried again"
                )
                mirror = None
            else:
                if self._is_failing:
                    self.console.print("MLflow answers again: what is missing is written now")
                    self._is_failing = False
                    self._said.clear()
                pause = FIRST_PAUSE_S
                continue
            finally:
                self._is_at_work = False
            self._is_failing = True
            self._pause(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _next(self) -> "tuple[str, Callable[[Mirror], None]] | None":
        """What waits, trials before the study, and pictures and teachers last.

        None when nothing does, and nothing will.
        """
        with self._change:
            if not self._waiting:
                # What comes now is a new look.
                self._change.wait_for(lambda: self._is_closing, EVERY_S)
            self._change.wait_for(lambda: self._is_closing or self._waiting)
            if not self._waiting:
                return None
            late = (_PICTURES, _TEACHER)
            name = min(self._waiting, key=lambda one: (one.startswith(late), one == _STUDY))
            return name, self._waiting[name]

    def _done(self, name: str, work: "Callable[[Mirror], None]") -> None:
        with self._change:
            # Not when it has moved again meanwhile.
            if self._waiting.get(name) is work:
                del self._waiting[name]

    def _all_again(self) -> None:
        with self._change:
            self._waiting = {**self._seen, **self._waiting}

    def _pause(self, seconds: float) -> None:
        with self._change:
            if self._is_closing:
                seconds = min(seconds, FIRST_PAUSE_S)
                self._change.wait(seconds)
            else:
                self._change.wait_for(lambda: self._is_closing, seconds)

    def _say(self, line: str) -> None:
        if line not in self._said and not self._is_over:
            self._said.add(line)
            self.console.print(line)
