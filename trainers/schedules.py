"""Schedules over global steps: values as a function of the step, no state."""

import math


def cosine(step: int, total: int, start: float, end: float) -> float:
    """From `start` at step 0 to `end` at step `total - 1` along half a cosine; then `end`.

    ``end + (start - end) (1 + cos(π t)) / 2`` with ``t = step / (total - 1)``.
    """
    if step >= total - 1:
        return end
    return end + (start - end) * (1 + math.cos(math.pi * step / (total - 1))) / 2


def warmup_cosine(step: int, total: int, warmup: int, peak: float, end: float) -> float:
    """Linear from 0 at step 0 to `peak` after `warmup` steps, then a cosine to `end`."""
    if step < warmup:
        return peak * step / warmup
    return cosine(step - warmup, total - warmup, peak, end)
