"""How a run ends before its last step: asked to by SIGTERM, or because it has collapsed."""

import contextlib
import signal
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Literal

import torch

from trainers.config import TrainConfig
from trainers.evaluation.collapse import collapsed
from trainers.system.world import World


class Interrupted(KeyboardInterrupt):
    """A run has been asked to end, and has saved where it was; says so in one line."""


class _Asked:
    """Whether a run is being trained in this process, and whether it has been asked to end."""

    trains = False
    to_end = False


def listen() -> None:
    """Let SIGTERM end a run where it can go on from: after the step that it is at, and saved.

    A second one ends the process at once, as does one that comes when nothing is being trained.
    For a process that is a run's own: call it from the main thread.
    """
    signal.signal(signal.SIGTERM, _asked)


def _asked(_signal: int, _frame: FrameType | None) -> None:
    if _Asked.to_end or not _Asked.trains:
        raise KeyboardInterrupt
    _Asked.to_end = True


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """While a run looks for itself whether it has been asked to end."""
    _Asked.trains = True
    try:
        yield
    finally:
        _Asked.trains = _Asked.to_end = False


def has_collapsed(config: TrainConfig, world: World, evaluation: Mapping[str, float]) -> bool:
    """Whether `stop_when` ends the run after an evaluation: the first worker's, told to all."""
    if config.stop_when != "collapsed":
        return False
    return bool(world.told(bool(world.is_first and collapsed(evaluation))))


def why_to_end(
    config: TrainConfig, world: World, evaluation: Mapping[str, float] | None, *, looks: bool
) -> Literal["", "collapsed", "interrupted"]:
    """Why the run is to end after this step, the same on every worker; empty if it goes on.

    `evaluation` is that of this step, on the first worker; None where there was none. Several
    workers ask one another for signals only where one `looks`, since all of them wait for that.
    """
    if evaluation is not None and has_collapsed(config, world, evaluation):
        return "collapsed"
    asked = _Asked.to_end
    if world.size > 1:
        asked = looks and bool(world.largest(torch.tensor(int(asked), device=world.device)))
    return "interrupted" if asked else ""
