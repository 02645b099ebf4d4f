"""How a run ends before its last step: asked to by SIGTERM, or because it has collapsed."""

import contextlib
import signal
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Literal

from trainers.config import TrainConfig
from trainers.evaluation.collapse import collapsed
from trainers.system.world import World


class Interrupted(KeyboardInterrupt):
    """A run has been asked to end, and has saved where it was; says so in one line."""

    def __init__(self, step: int) -> None:
        self.saved = f"saved at step {step}"
        super().__init__(f"interrupted: {self.saved}; the same command goes on from there")


class _Asked:
    """Whether a run is being trained in this process, and whether it has been asked to end."""

    trains = False
    since: float | None = None
    """when it was first asked to end, in seconds of the monotonic clock"""


_ONE_REQUEST_S = 5.0
"""Signals that come so soon after the first are the same request: schedulers and launchers each
send one."""


def listen() -> None:
    """Let SIGTERM end a run where it can go on from: after the step that it is at, and saved.

    A second one ends the process at once, unless it comes within 5 seconds of the first; so does
    one that comes when nothing is being trained.
    For a process that is a run's own: call it from the main thread.
    """
    signal.signal(signal.SIGTERM, _asked)


def _asked(_signal: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    if not _Asked.trains:
        raise KeyboardInterrupt
    if _Asked.since is None:
        _Asked.since = now
    elif now - _Asked.since > _ONE_REQUEST_S:
        raise KeyboardInterrupt


def ask_to_end() -> None:
    """The same from inside this process: in any thread, as often as one likes."""
    if _Asked.trains and _Asked.since is None:
        _Asked.since = time.monotonic()


def asked_to_end() -> bool:
    """Whether this process has been asked to end the run that it trains."""
    return _Asked.since is not None


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """While a run looks for itself whether it has been asked to end."""
    _Asked.trains = True
    try:
        yield
    finally:
        _Asked.trains, _Asked.since = False, None


def has_collapsed(config: TrainConfig, world: World, evaluation: Mapping[str, float]) -> bool:
    """Whether `stop_when` ends the run after an evaluation: the first worker's, told to all."""
    if config.stop_when != "collapsed":
        return False
    return bool(world.told(bool(world.is_first and collapsed(evaluation))))


def why_to_end(
    config: TrainConfig, world: World, evaluation: Mapping[str, float] | None, asked: bool
) -> Literal["", "collapsed", "interrupted"]:
    """Why the run is to end after this step, the same on every worker; empty if it goes on.

    `evaluation` is that of this step, on the first worker; None where there was none. `asked` is
    whether any worker had been asked to end when the step began.
    """
    if evaluation is not None and has_collapsed(config, world, evaluation):
        return "collapsed"
    if world.size == 1:
        asked = asked_to_end()
    return "interrupted" if asked else ""
