"""When a run saves, what of it stays, and the one thread that writes while training goes on."""

import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from torch import Tensor

from trainers.config import TrainConfig
from trainers.config.explain import nearest
from trainers.errors import ConfigError, UnwrittenError, reason
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.reporter import Reporter
from trainers.training.state import TrainState

if TYPE_CHECKING:
    from trainers.system.sharded_files import ShardedWriter

_UNKNOWN = -1


class Keeper(Protocol):
    """Who makes checkpoints count that are written to a folder. Only the first worker asks it."""

    def begun(self, step: int) -> None:
        """The state of `step` is copied, and all up to it is reported. Called while it trains."""

    def keep(self, step: int, path: Path, stays: Callable[[int], bool]) -> None:
        """The checkpoint of `step` is whole at `path`. It counts once this returns.

        `stays` says of earlier ones, by step, whether they outlive it.
        """

    def drop(self, path: Path) -> None:
        """Remove a checkpoint that does not stay."""

    def evaluated(
        self,
        step: int,
        names: Tensor,
        by_image: Mapping[str, Tensor],
        maps: Mapping[str, Tensor],
    ) -> None:
        """What an evaluation, before its metrics are reported, says of single images: see
        `evaluate`.

        `names` are those of the held-out images, int64, in the order in which they are measured.
        """


class Folder:
    """The keeper for whom every whole file of the folder counts; images leave none in it."""

    def evaluated(
        self,
        step: int,
        names: Tensor,
        by_image: Mapping[str, Tensor],
        maps: Mapping[str, Tensor],
    ) -> None:
        """See Keeper."""

    def begun(self, step: int) -> None:
        """See Keeper."""

    def keep(self, step: int, path: Path, stays: Callable[[int], bool]) -> None:
        """See Keeper."""

    def drop(self, path: Path) -> None:
        """See Keeper."""
        remove(path)


class Saving:
    """The checkpoints of a run in `folder`; every worker makes one and calls it alike.

    A state is copied when it is saved, and written in the background, each to a file or folder of
    its own. One is written at a time: the next one waits. The reporter of the first worker is told
    of a checkpoint that is whole when the next one is begun, or at the end. A run that goes on from
    a checkpoint, or anew if None, drops what is in `folder` of later steps, which will come again.

    Leaving it waits for what is being written. An UnwrittenError says what could not be written.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        world: World,
        reporter: Reporter,
        resume_from: Path | None,
        keeper: Keeper | None = None,
    ) -> None:
        self.config, self.folder, self.world, self.reporter = config, folder, world, reporter
        self.keeper = keeper or Folder()
        self.step = None if resume_from is None else checkpoint.saved_step(resume_from)
        """of the last checkpoint; None before the first one"""
        self._thread: threading.Thread | None = None
        self._written: Path | None = None
        self._error: BaseException | None = None
        self._parts: ShardedWriter | None = None
        self._best = None if resume_from is None else checkpoint.saved_best(resume_from)
        if world.is_first and folder.is_dir():
            self._tidy()

    def __enter__(self) -> Self:
        if self.world.is_first:
            self.folder.mkdir(parents=True, exist_ok=True)
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
        if not (
            now
            or is_best
            or self._stays(step)
            or (step and step % self.config.checkpoint_every == 0)
        ):
            return
        self.wait()
        if self.world.is_first:
            self.keeper.begun(step)
        self._thread = threading.Thread(
            target=self._work, args=(self._writer(state), step, self._best), daemon=True
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

    def _writer(self, state: TrainState) -> Callable[[], Path | None]:
        """Copies `state`, and returns what makes a whole checkpoint of it."""
        if self.config.compute.sharded and self.world.size > 1:
            if self._parts is None:
                from trainers.system.sharded_files import ShardedWriter

                self._parts = ShardedWriter()
            return checkpoint.folder_writer(
                state, self.config, self.folder, self.world, self._parts, self._best
            )
        write = checkpoint.file_writer(state, self.config, self.world, self._best)
        path = checkpoint.file_of(self.folder, state.step)
        return (lambda: write(path)) if self.world.is_first else lambda: None

    def _work(
        self, write: Callable[[], Path | None], step: int, best: checkpoint.Best | None
    ) -> None:
        try:
            self._written = write()
            if self.world.is_first and self._written:
                self._keep(step, self._written, None if best is None else best.step)
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
            elif self._best is None or sign * value > sign * self._best.value:
                answer, self._best = 1, checkpoint.Best(step, value)
        if (answer := self.world.told(answer)) == _UNKNOWN:
            raise ConfigError(
                f"checkpoints.keep_best {kept.keep_best!r} is not what an evaluation of this run "
                f"reports{nearest(kept.keep_best, evaluation)}"
            )
        return bool(answer)

    def _tidy(self) -> None:
        """Drop what a kill has left half-written, and what is of steps that will come again."""
        for path in self.folder.glob(".checkpoint-*"):
            remove(path)
        limit = -1 if self.step is None else self.step
        for path, step in checkpoint.of_steps(self.folder).items():
            if step > limit:
                self.keeper.drop(path)

    def _keep(self, newest: int, written: Path, best: int | None) -> None:
        """Make the newest checkpoint count, and remove those that do not stay."""

        def stays(step: int) -> bool:
            return step == best or self._stays(step)

        self.keeper.keep(newest, written, stays)
        for path, step in checkpoint.of_steps(self.folder).items():
            if step != newest and not stays(step):
                self.keeper.drop(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder that is never seen with a part of what was in it."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if not path.name.startswith("."):
        path = path.rename(path.with_name(f".{path.name}"))
    shutil.rmtree(path, ignore_errors=True)


def _why(error: BaseException) -> str:
    return reason(error) if isinstance(error, Exception) else type(error).__name__
