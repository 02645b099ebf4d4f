"""Sign flips of paired differences: what every exact test here enumerates."""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

EXACT_SEEDS = 16
"""Most seeds for which all 2**n sign flips are enumerated."""

SIGN_FLIPS = 65_536
"""Random sign flips drawn, with a fixed seed, beyond EXACT_SEEDS."""

TIE = 1e-12
"""Statistics of differences of length 1 that are nearer than this are equal but for rounding."""


_AT_ONCE = 2**21
"""Statistics of flips that are in memory at a time."""


@functools.lru_cache(maxsize=8)
def signs(n: int) -> Floats:
    """Flips of n >= 1 signs, +1 or -1, [flips, n]; the first flips none. Not to be written to.

    Up to EXACT_SEEDS they are the half of all flips that leaves the last sign, since two-sided
    statistics are the same for the other half. Beyond it they are SIGN_FLIPS random ones and the
    one that flips none: a share of these is a p-value with the +1 correction.
    """
    if n <= EXACT_SEEDS:
        flipped = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
    else:
        flipped = np.random.default_rng(0).integers(0, 2, size=(1 + SIGN_FLIPS, n))
        flipped[0] = 0
    result = np.where(flipped, -1.0, 1.0)
    result.setflags(write=False)
    return result


def of_length_one(differences: Floats) -> Floats:
    """Differences [..., n] over their length along n; zeros stay zeros.

    Flips leave the length, so the mean of these orders them as the studentised mean does.

    Raises:
        ValueError: if one is not a finite number, whose flips would all count as smaller.
    """
    if not np.isfinite(differences).all():
        raise ValueError("differences must be finite numbers: leave out pairs that have none")
    largest = np.abs(differences).max(axis=-1, keepdims=True)
    scaled = differences / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(scaled, axis=-1, keepdims=True)
    return np.asarray(scaled / np.where(length > 0, length, 1.0), dtype=np.float64)


def in_batches(compute: Callable[[Floats], Floats], rows: Floats, statistics: int) -> Floats:
    """compute(rows), rows [k, ...], a batch at a time; each row makes this many statistics."""
    step = max(1, _AT_ONCE // statistics)
    firsts = range(0, max(1, len(rows)), step)
    return np.concatenate([compute(rows[first : first + step]) for first in firsts])
