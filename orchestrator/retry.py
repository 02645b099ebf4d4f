"""How an attempt at a trial failed -> whose it is to mend, and whether to try again; pure."""

import errno
from dataclasses import dataclass
from typing import Literal

from trainers.errors import (
    DinolabError,
    InputError,
    LostWorkerError,
    OutOfMemoryError,
    PlanError,
    StoreError,
)
from trainers.system.memory import is_out_of_memory

Decision = Literal["retry", "give up"]

Kind = Literal["user", "ours", "infrastructure"]
"""Whose an error is to mend: who gave what cannot be used, dinolab's, or the machines'."""

SAID: dict[Kind, str] = {
    "user": "to be mended by you",
    "ours": "a fault of dinolab",
    "infrastructure": "of the machines",
}

ATTEMPTS = 3
"""Attempts in a row without a new checkpoint after which a trial is given up."""

REST_S = 2.0
"""Seconds before a second attempt; four times as long before each further one in a row."""

LONGEST_REST_S = 300.0

ROOT_ROUNDS = 5
"""How often in a row a run root may fail before the driver ends: after 2 s, 8 s, 32 s and 128 s."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class PreemptedError(DinolabError):
    """An attempt has saved where it was, and ended: to go on on another machine, or otherwise."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt ended without a result."""

    kind: Kind
    message: str
    again: bool
    """whether another attempt may go better"""
    of_the_root: bool = False
    """whether every other trial would fail alike: the run root is full, gone or does not answer"""
    interrupted: bool = False
    """ended from outside, as by preemption"""
    over_time: bool = False
    """ended because it came over its time limit"""

    def __str__(self) -> str:
        return f"{self.message} ({SAID[self.kind]})"


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Another attempt is made, not before `after_s` seconds; `in_a_row` have made no checkpoint."""

    after_s: float
    in_a_row: int


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """No other attempt is made by this driver; `in_a_row` have made no checkpoint."""

    in_a_row: int


def settle(in_a_row: int, failure: Failure, *, new_checkpoint: bool) -> Retry | GiveUp:
    """What follows the failure of an attempt, after `in_a_row` that made no new checkpoint.

    One that was interrupted costs nothing. One that came over its time limit counts even when it
    has made a checkpoint: without that it could go on for ever.
    """
    if failure.interrupted:
        return Retry(after_s=REST_S, in_a_row=in_a_row)
    counted = 0 if new_checkpoint and not failure.over_time else in_a_row + 1
    if not failure.again or counted >= ATTEMPTS:
        return GiveUp(in_a_row=counted)
    rest = REST_S * 4 ** max(counted - 1, 0)
    return Retry(after_s=min(rest, LONGEST_REST_S), in_a_row=counted)


def rest_of_root(round_: int) -> float | None:
    """Seconds of rest after a run root has failed for the `round_`-th time in a row; None: end."""
    return REST_S * 4 ** (round_ - 1) if round_ < ROOT_ROUNDS else None


def failure_of(error: BaseException) -> Failure:
    """The failure of an attempt that raised `error`."""
    # What dinolab says of the run root or a machine needs no name of a class.
    said = isinstance(error, StoreError | PreemptedError)
    name = "" if said else f"{type(error).__name__}: "
    return Failure(
        kind=kind_of(error),
        message=f"{name}{error}",
        again=decide(error) == "retry",
        of_the_root=_is_of_the_root(error),
        interrupted=isinstance(error, PreemptedError),
    )


def kind_of(error: BaseException) -> Kind:
    """Whose an error that a trial raised is to mend."""
    if isinstance(error, InputError | OutOfMemoryError | PlanError) or is_out_of_memory(error):
        return "user"
    return "infrastructure" if decide(error) == "retry" else "ours"


def decide(error: BaseException) -> Decision:
    """What to do about an error that a trial raised.

    An error that the same input would raise again is given up, too little memory among them; a
    lost file system or worker (every error of Ray's own) is retried from the last checkpoint.
    """
    if is_out_of_memory(error):
        return "give up"
    # Before errors of ours: a checkpoint that could not be written is one, and the machine's.
    if isinstance(error, LostWorkerError | PreemptedError | OSError | ConnectionError):
        return "retry"
    if isinstance(error, DinolabError):
        return "give up"
    if type(error).__module__.startswith("ray."):
        return "retry"
    if isinstance(error, RuntimeError) and _is_of_the_machine(str(error)):
        return "retry"
    return "give up"


def _is_of_the_root(error: BaseException) -> bool:
    """Whether the run root does not answer or is full, as the error or what it comes of says."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StoreError) or (isinstance(seen, OSError) and seen.errno in _FULL):
            return True
        seen = seen.__cause__
    return False


def _is_of_the_machine(message: str) -> bool:
    marks = ("CUDA error", "NCCL", "gloo", "Connection")
    return any(mark.lower() in message.lower() for mark in marks)
