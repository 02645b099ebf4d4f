"""Where the mean of a quantity that is measured at ordered places crosses 0, with an interval.

Between neighbouring places each unit's value is taken to lie on a straight line. At any place the
mean of n units then has a Student t interval, and the places whose interval has 0 in it are the
confidence set of the crossing: Fieller (1954), "Some problems in interval estimation", for one pair
of places. A set of places, since it may have gaps and need not end between the first and the last.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from ablations.statistics.effect_sizes import Interval


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """Where a mean crosses 0, in the unit of the places."""

    at: tuple[float, ...]
    """Places at which the mean is 0, ascending; empty where it has one sign."""
    within: tuple[Interval, ...]
    """The confidence set as intervals, ascending, each within the first and the last place; empty
    where no place is compatible with a mean of 0."""


def crossover(values: npt.ArrayLike, places: Sequence[float], *, alpha: float = 0.05) -> Crossover:
    """Where the mean over units crosses 0, and the set of places that may be it.

    If the mean does cross 0 at a place, the set has it with probability 1 - alpha, for normal
    values with any correlation between places.

    Args:
        values: of each unit at each place, [n, K], n >= 2, K >= 2, finite.
        places: numbers that ascend, K of them.
        alpha: error rate, in (0, 1).

    Raises:
        ValueError: for anything else.
    """
    y, x = np.asarray(values, dtype=np.float64), np.asarray(places, dtype=np.float64)
    if y.ndim != 2 or y.shape[0] < 2 or x.ndim != 1 or y.shape[1] != len(x) or len(x) < 2:
        raise ValueError(
            f"values must be [2 or more units, {x.size} places], 2 places or more; got {y.shape}"
        )
    if not (np.isfinite(y).all() and np.isfinite(x).all() and (np.diff(x) > 0).all()):
        raise ValueError("values and places must be finite, and places ascend")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    mean = y.mean(axis=0)
    covariance = np.cov(y, rowvar=False) / len(y)
    t = float(stdtrit(len(y) - 1, 1 - alpha / 2))
    at: list[float] = []
    within: list[Interval] = []
    for k in range(len(x) - 1):
        a, b = mean[k], mean[k + 1] - mean[k]
        own, other, both = covariance[k, k], covariance[k + 1, k + 1], covariance[k, k + 1]
        # The variance of the mean at a share u of the way, as a polynomial in u.
        spread = np.array([own, 2 * (both - own), own + other - 2 * both])
        outside = np.array([a * a, 2 * a * b, b * b]) - t * t * spread
        zeros = [-a / b] if b else [0.0, 1.0] if a == 0 else []
        zeros = [u for u in zeros if 0 <= u <= 1]
        at += [_place(x[k], x[k + 1], u) for u in zeros]
        inside = [*_not_above_zero(outside), *((u, u) for u in zeros)]
        within += [
            (_place(x[k], x[k + 1], low), _place(x[k], x[k + 1], high)) for low, high in inside
        ]
    return Crossover(at=tuple(dict.fromkeys(at)), within=tuple(_merged(within)))


def _place(first: float, last: float, share: float) -> float:
    """At a share of the way, [0, 1], from one place to the next: exactly these at its ends."""
    return float(last if share == 1 else first + share * (last - first))


def _not_above_zero(polynomial: npt.NDArray[np.float64]) -> list[Interval]:
    """The parts of [0, 1] in which a polynomial, [coefficients], is 0 or less."""
    roots = np.roots(np.trim_zeros(polynomial[::-1], "f"))
    real = sorted(float(one.real) for one in roots if abs(one.imag) < 1e-12 and 0 < one.real < 1)
    ends = [0.0, *real, 1.0]
    return [
        (low, high)
        for low, high in itertools.pairwise(ends)
        if np.polynomial.polynomial.polyval((low + high) / 2, polynomial) <= 0
    ]


def _merged(intervals: Sequence[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for low, high in sorted(intervals):
        if merged and low <= merged[-1][1] + 1e-12 * max(1.0, abs(low)):
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    return merged
