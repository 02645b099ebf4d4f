"""Schedules over global steps: values as a function of the step, no state."""

import math


def cosine(step: int, total: int, start: float, end: float) -> float:
    """From `start` at step 0 towards `end`, which half a cosine reaches at step `total`.

    ``end + (start - end) (1 + cos(π step / total)) / 2``, as in DINO; `end` from `total` on.
    """
    if step >= total:
        return end
    return end + (start - end) * (1 + math.cos(math.pi * step / total)) / 2


def linear(step: int, length: int, start: float, end: float) -> float:
    """From `start` at step 0 to `end` at step ``length - 1`` on a straight line; then `end`."""
    if step >= length - 1:
        return end
    return start + (end - start) * step / (length - 1)


def warmup_cosine(step: int, total: int, warmup: int, peak: float, end: float) -> float:
    """Linear from 0 to `peak` in the first `warmup` steps, then a cosine towards `end`."""
    if step < warmup:
        return linear(step, warmup, 0.0, peak)
    return cosine(step - warmup, total - warmup, peak, end)
