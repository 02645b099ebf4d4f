"""Error -> decision, as a value; pure."""

from typing import Literal

from trainers.errors import DinolabError, LostWorkerError
from trainers.system.memory import is_out_of_memory

Decision = Literal["retry", "give up"]

ATTEMPTS = 3
"""Attempts at a trial that keeps failing for reasons outside it."""


def decide(error: BaseException) -> Decision:
    """What to do about an error that a trial raised.

    An error that the same input would raise again is given up, too little memory among them; a
    lost file system or worker (every error of Ray's own) is retried from the last checkpoint.
    """
    if is_out_of_memory(error):
        return "give up"
    # Before errors of ours: a checkpoint that could not be written is one, and the machine's.
    if isinstance(error, LostWorkerError | OSError | ConnectionError):
        return "retry"
    if isinstance(error, DinolabError):
        return "give up"
    if type(error).__module__.startswith("ray."):
        return "retry"
    if isinstance(error, RuntimeError) and _is_of_the_machine(str(error)):
        return "retry"
    return "give up"


def _is_of_the_machine(message: str) -> bool:
    marks = ("CUDA error", "NCCL", "gloo", "Connection")
    return any(mark.lower() in message.lower() for mark in marks)
