"""When a run saves, what of it stays, and the one thread that writes while training goes on."""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from trainers.config import TrainConfig
from trainers.config.explain import nearest
from trainers.errors import ConfigError, UnwrittenError, reason
from trainers.system.atomic import replace_json
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.reporter import Reporter
from trainers.training.state import TrainState

if TYPE_CHECKING:
    from trainers.system.sharded_files import ShardedWriter

BEST_NAME = "best.json"
"""which step has the best of `checkpoints.keep_best`, and its value"""

_UNKNOWN = -1


class Saving:
    """The checkpoints of a run in `folder`; every worker makes one and calls it alike.

    A state is copied when it is saved, and written in the background. One is written at a time: the
    next one waits. The reporter of the first worker is told of a checkpoint that is whole when the
    next one is begun, or at the end. A run that starts from step `start`, or anew if None, drops
    what is there of later steps, which will come again.

    Leaving it waits for what is being written. An UnwrittenError says what could not be written.
    """

    def __init__(
        self, config: TrainConfig, folder: Path, world: World, reporter: Reporter, start: int | None
    ) -> None:
        self.config, self.folder, self.world, self.reporter = config, folder, world, reporter
        self.step = start
        """of the last checkpoint; None before the first one"""
        self._thread: threading.Thread | None = None
        self._written: Path | None = None
        self._error: BaseException | None = None
        self._parts: ShardedWriter | None = None
        self._best: tuple[int, float] | None = None
        if world.is_first and folder.is_dir():
            self._tidy(start)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.wait()
        elif self._thread:
            self._thread.join()
            if self._error:
                error.add_note(f"and a checkpoint could not be written: {self._error}")

    def after(
        self, state: TrainState, evaluation: Mapping[str, float] | None, *, now: bool = False
    ) -> None:
        """Save `state` if its step is to be saved, or `now`.

        `evaluation` is that of this step, on the first worker; None where there was none. Raises
        ConfigError when it lacks the metric whose best is to stay.
        """
        step = state.step
        is_best = evaluation is not None and self._is_best(step, evaluation)
        stays = is_best or self._stays(step)
        if not (now or stays or (step and step % self.config.checkpoint_every == 0)):
            return
        self.wait()
        self._thread = threading.Thread(
            target=self._work,
            args=(self._writer(state, stays, is_best), step, self._best),
            daemon=True,
        )
        self._thread.start()
        self.step = step

    def wait(self) -> None:
        """Return once what was saved is whole. Raises UnwrittenError when it could not be."""
        if self._thread is None or self.step is None:
            return
        self._thread.join()
        self._thread = None
        if self._error:
            raise UnwrittenError(
                f"the checkpoint of step {self.step} could not be written into {self.folder}: "
                f"{_why(self._error)}; the one before is whole: make room or mend the disk, and "
                "run the same command again"
            ) from self._error
        if self._written and self.world.is_first:
            self.reporter.report(self.step, {}, checkpoint=self._written)

    def _writer(self, state: TrainState, stays: bool, is_best: bool) -> Callable[[], Path | None]:
        """Copies `state`, and returns what makes a whole checkpoint of it."""
        best = self._best

        def note_best() -> None:
            # While there is no checkpoint yet: a run that goes on from one must know if it is best.
            if is_best and best is not None:
                replace_json(self.folder / BEST_NAME, {"step": best[0], "value": best[1]})

        if self.config.compute.sharded and self.world.size > 1:
            if self._parts is None:
                from trainers.system.sharded_files import ShardedWriter

                self._parts = ShardedWriter()
            return checkpoint.folder_writer(
                state, self.config, self.folder, self.world, self._parts, note_best
            )
        write = checkpoint.file_writer(state, self.config, self.world, note_best)
        last, own = self.folder / checkpoint.FILE_NAME, checkpoint.file_of(self.folder, state.step)

        def both() -> Path:
            # Itself first: after a kill between the two, a run goes on from it.
            return _linked(write(own), last) if stays else write(last)

        return both if self.world.is_first else lambda: None

    def _work(
        self, write: Callable[[], Path | None], step: int, best: tuple[int, float] | None
    ) -> None:
        try:
            self._written = write()
            if self.world.is_first:
                self._drop_others(step, None if best is None else best[0])
        except BaseException as error:  # noqa: BLE001 (whatever it is, `wait` raises it)
            self._error = error

    def _stays(self, step: int) -> bool:
        kept = self.config.checkpoints
        is_kept = bool(kept.keep_every) and step > 0 and step % kept.keep_every == 0
        return is_kept or step in kept.keep_steps

    def _is_best(self, step: int, evaluation: Mapping[str, float]) -> bool:
        """Whether the first worker finds a better value than all before; told to all workers."""
        kept = self.config.checkpoints
        if not kept.keep_best:
            return False
        answer = 0
        if self.world.is_first:
            value = evaluation.get(kept.keep_best)
            sign = 1 if kept.keep_best_is == "highest" else -1
            if value is None:
                answer = _UNKNOWN
            elif self._best is None or sign * value > sign * self._best[1]:
                answer, self._best = 1, (step, value)
        if (answer := self.world.told(answer)) == _UNKNOWN:
            raise ConfigError(
                f"checkpoints.keep_best {kept.keep_best!r} is not what an evaluation of this run "
                f"reports{nearest(kept.keep_best, evaluation)}"
            )
        return bool(answer)

    def _tidy(self, start: int | None) -> None:
        """Drop what a kill has left half-written, and what is of steps that will come again."""
        for pattern in (".state.*", ".checkpoint-*", f".{BEST_NAME}.*"):
            for path in self.folder.glob(pattern):
                _remove(path)
        limit = -1 if start is None else start
        for path, step in checkpoint.of_steps(self.folder).items():
            if step > limit:
                _remove(path)
        best = self.folder / BEST_NAME
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(best.read_bytes())
            self._best = (int(found["step"]), float(found["value"]))
        if self._best and self._best[0] > limit:
            self._best = None
            best.unlink()

    def _drop_others(self, newest: int, best: int | None) -> None:
        """Remove what is neither the newest checkpoint nor one that stays."""
        for path, step in checkpoint.of_steps(self.folder).items():
            is_last = step == newest and path.is_dir()
            if not (is_last or step == best or self._stays(step)):
                _remove(path)
        last = self.folder / checkpoint.FILE_NAME
        if checkpoint.folder_of(self.folder, newest).is_dir():
            # What one worker saved before there were several.
            last.unlink(missing_ok=True)


def _linked(source: Path, last: Path) -> Path:
    """Makes `last` the same file as `source`, at once; returns `source`."""
    beside = last.with_name(f".{last.name}.linked")
    beside.unlink(missing_ok=True)
    try:
        os.link(source, beside)
    except OSError:
        # Not every file system has links.
        shutil.copyfile(source, beside)
    beside.replace(last)
    return source


def _remove(path: Path) -> None:
    """Remove a file, or a folder that is never seen with a part of what was in it."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if not path.name.startswith("."):
        path = path.rename(path.with_name(f".{path.name}"))
    shutil.rmtree(path, ignore_errors=True)


def _why(error: BaseException) -> str:
    return reason(error) if isinstance(error, Exception) else type(error).__name__
