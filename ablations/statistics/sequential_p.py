"""p-values and intervals that stay valid over the looks of a sequential design.

The p-value of a design is the smallest alpha at which it would have crossed by now: it may be
adjusted for the number of hypotheses as any other.
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats
from scipy.interpolate import PchipInterpolator

from ablations.statistics.e_process import anytime_p, e_values
from ablations.statistics.effect_sizes import Interval
from ablations.statistics.flips import Floats
from ablations.statistics.spending import Kind, RankedSigns, boundaries

LEAST, MOST = 1e-6, 0.45
"""Between these a p-value of a design is told; below it is LEAST, above it is 1."""

MOST_SHARES = 50
"""Most tests of a family for whose shares of alpha a p-value of sign flips is exact."""

_LEVELS = 20
"""Levels from alpha up that a p-value of sign flips is looked up at."""

_SHIFTS = 2001
"""Shifts that are tried from the mean to one that is rejected."""


@functools.lru_cache(maxsize=4096)
def level(looks: tuple[int, ...], number: int, alpha: float, kind: Kind) -> float:
    """The two-sided nominal level of look `number`, from 0, of a design at `alpha`."""
    fractions = tuple(look / looks[-1] for look in looks)
    return float(2 * scipy.stats.norm.sf(boundaries(fractions, alpha, kind)[number]))


def one_sided_level(looks: tuple[int, ...], number: int, alpha: float, kind: Kind) -> float:
    """The same of a one-sided test at `alpha`, in (0, 0.5)."""
    return level(looks, number, 2 * alpha, kind) / 2


def nominal_p(p: float, looks: tuple[int, ...], number: int, kind: Kind) -> float:
    """The smallest alpha at which a two-sided `p` crosses at look `number`, from 0."""
    return _alpha_of(looks, number, kind)(p)


def one_sided_nominal_p(p: float, looks: tuple[int, ...], number: int, kind: Kind) -> float:
    """The same of a one-sided test."""
    both = nominal_p(min(2 * p, 1.0), looks, number, kind)
    return both / 2 if both < 1 else 1.0


@functools.lru_cache(maxsize=256)
def _alpha_of(looks: tuple[int, ...], number: int, kind: Kind) -> Callable[[float], float]:
    """The inverse of `level`, interpolated between logarithms."""
    alphas = np.geomspace(LEAST, 2 * MOST, 40)
    levels = np.array([level(looks, number, float(alpha), kind) for alpha in alphas])
    rising = np.concatenate([[True], np.diff(levels) > 0])
    curve = PchipInterpolator(np.log(levels[rising]), np.log(alphas[rising]))

    def alpha_of(p: float) -> float:
        if p > levels.max():
            return 1.0
        return float(np.exp(curve(np.log(max(p, levels[rising].min())))))

    return alpha_of


def sign_flip_p(
    differences: Floats, looks: Sequence[int], kind: Kind, alpha: float = 0.05
) -> float:
    """The smallest level from which on `sign_flip_look` has crossed with these differences, [n].

    A larger alpha can cross where a smaller one did not and the other way round: what it rejects at
    an early look it has no longer to spend at the next. So p is at most a level only if that level
    and those above it cross: at levels of a grid, among them `alpha` and its shares for up to
    MOST_SHARES tests, that happens with their own chance at most. n is one of `looks`, which are
    numbers of seeds.
    """
    ranked = RankedSigns(differences, looks, kind)
    crossing = 1.0
    for at in _grid(alpha):
        if not ranked.crosses(at):
            break
        crossing = at
    else:
        return crossing
    if crossing == 1.0:
        return 1.0
    low, high = math.log(at), math.log(crossing)
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if ranked.crosses(math.exp(middle)) else (middle, high)
    return min(crossing, math.exp(high))


@functools.lru_cache(maxsize=64)
def _grid(alpha: float) -> tuple[float, ...]:
    """Levels at which sign flips are looked at, descending."""
    above = np.geomspace(MOST, max(alpha, LEAST), _LEVELS)
    levels = [*above, *(alpha / share for share in range(2, MOST_SHARES + 1)), LEAST]
    return tuple(sorted({float(one) for one in levels if LEAST <= one <= MOST}, reverse=True))


def confidence_sequence(differences: Floats, alpha: float) -> Interval:
    """Shifts that the e-process has rejected after none of n differences, shape [n].

    Covers at level 1 - alpha at whatever seed one stops. The ends are the outermost such shifts,
    rounded outwards; infinite below `fewest_for_e_process`.
    """
    if len(differences) < fewest_for_e_process(alpha):
        return -math.inf, math.inf
    mean, spread = float(differences.mean()), float(np.ptp(differences))
    if spread <= 1e-12 * float(np.abs(differences).max()):
        return mean, mean

    def end(step: float) -> float:
        while anytime_p(differences - (mean + step)) > alpha:
            step *= 2
        shifts = mean + step * np.linspace(1, 0, _SHIFTS)
        kept = anytime_p(differences - shifts[:, None]) > alpha
        return float(shifts[max(int(kept.argmax()) - 1, 0)])

    return end(-spread), end(spread)


@functools.lru_cache(maxsize=64)
def fewest_for_e_process(alpha: float) -> int:
    """Fewest differences, 2 or more, with which an e-process can reject at `alpha`."""
    n = 2
    while e_values(np.ones(n)).max() < 1 / alpha:
        n += 1
    return n
