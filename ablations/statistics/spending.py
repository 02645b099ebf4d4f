"""Group-sequential designs: boundaries of planned looks, and sign flips that are exact over them.

alpha is spent as a function of the information so far (Lan & DeMets 1983), like O'Brien & Fleming
(`obf`: nearly nothing early) or like Pocock (about the same at each look). All tests are two-sided.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import norm

from ablations.statistics.flips import TIE, Floats, in_batches, of_length_one, signs

Kind = Literal["obf", "pocock"]

_HIGHEST = 37.0
"""Critical |z| beyond which a tail is too small for a number."""

_ROUNDING = 1e-12
"""By which what may be spent comes out too small."""

_NO_LOOK = "looks are planned at {} seeds, got {}: wait for the next"

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


def spent(fraction: float, alpha: float, kind: Kind) -> float:
    """How much of alpha may be spent when this fraction, in (0, 1], of the seeds is there."""
    if kind == "obf":
        return float(4 * ndtr(ndtri(alpha / 4) / math.sqrt(fraction)))
    return alpha * math.log1p((math.e - 1) * fraction)


@functools.lru_cache(maxsize=1024)
def boundaries(fractions: tuple[float, ...], alpha: float, kind: Kind) -> tuple[float, ...]:
    """Critical |z| of each look, such that the chance to cross by then is what may be spent.

    z are means over their errors, of normal differences. A t or sign-flip p-value is held against
    the two-sided tail beyond them.

    Args:
        fractions: of the seeds planned, at each look: ascending, in (0, 1].
        alpha: chance to cross at any look if nothing is there, in (0, 1).

    Raises:
        ValueError: if the fractions do not ascend within (0, 1].
    """
    _check(fractions, 1.0)
    walk, found = Walk(), []
    for fraction in fractions:
        chance = walk.chance_at(fraction)
        allowed = max(spent(fraction, alpha, kind) - walk.crossed, chance(_HIGHEST))
        z = float(brentq(lambda z: chance(z) - allowed, 0.0, _HIGHEST))  # noqa: B023
        walk.look(fraction, z)
        found.append(z)
    return tuple(found)


class Walk:
    """Sums of normal differences that have crossed no boundary yet: a density on a grid.

    Information is time, so the sum at a look is sqrt(time) z and what is added has variance time.
    """

    def __init__(self) -> None:
        self._time, self._sums, self._mass = 0.0, np.zeros(1), np.ones(1)
        self.crossed = 0.0
        """Chance to have crossed so far."""

    def chance_at(self, time: float) -> Callable[[float], float]:
        """Chance to cross |z| at a look at `time`, after the looks so far."""
        added = math.sqrt(time - self._time)

        def chance(z: float) -> float:
            above = norm.sf((z * math.sqrt(time) - self._sums) / added)
            return float(2 * (self._mass @ above))

        return chance

    def look(self, time: float, z: float) -> None:
        """Takes off what crosses |z| at a look at `time`."""
        self.crossed += self.chance_at(time)(z)
        added, end = math.sqrt(time - self._time), z * math.sqrt(time)
        sums = end * _NODES
        density = norm.pdf((sums[:, None] - self._sums) / added) @ self._mass / added
        self._time, self._sums, self._mass = time, sums, end * _WEIGHTS * density


def sign_flip_look(
    differences: Floats, looks: Sequence[int], alpha: float, kind: Kind
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Whether exact sign flips have crossed at this look or before, and this look's nominal level.

    At each look the patterns of signs with the largest means are rejected, of those that no look
    has rejected yet: as many as may be spent, patterns that tie all or none. So the chance to
    reject at any look is at most alpha for symmetric differences, whatever their sizes. The sizes
    seen so far decide, so a look can be judged before the next seeds are there. Random flips beyond
    EXACT_SEEDS.

    Args:
        differences: shape [..., n], those of the first n seeds in the order planned.
        looks: numbers of seeds, ascending; n is one of them, the last is the most planned.
        alpha: chance to cross at any look if nothing is there, in (0, 1).

    Returns:
        Whether the boundary is crossed, and the largest sign-flip p-value that crosses it at this
        look (0 if none can), each of shape [...].

    Raises:
        ValueError: if looks do not ascend, or n is none of them.
    """
    _check(looks, math.inf)
    *leading, n = differences.shape
    if n not in looks:
        raise ValueError(_NO_LOOK.format(list(looks), n))
    flips = signs(n)
    may_spend = [
        (look, math.floor(spent(look / looks[-1], alpha, kind) * len(flips) * (1 + _ROUNDING)))
        for look in looks
        if look <= n
    ]

    def judge(rows: Floats) -> Floats:
        rejected = np.zeros((len(rows), len(flips)), dtype=bool)
        for look, most in may_spend:
            means = np.abs(rows[:, :look] @ flips[:, :look].T)
            place = len(flips) - 1 - most + rejected.sum(axis=1, keepdims=True)
            ranked = np.partition(np.where(rejected, -1.0, means), np.unique(place))
            first_kept = np.take_along_axis(ranked, place, axis=1)
            extreme = means > first_kept + TIE
            rejected |= extreme
        return np.stack([rejected[:, 0], extreme.mean(axis=1)], axis=1)

    judged = in_batches(judge, of_length_one(differences).reshape(-1, n), len(flips))
    return judged[:, 0].reshape(leading) > 0, judged[:, 1].reshape(leading)


class RankedSigns:
    """What `sign_flip_look` rejects of one study, differences [n], at any alpha."""

    def __init__(self, differences: Floats, looks: Sequence[int], kind: Kind) -> None:
        _check(looks, math.inf)
        n = len(differences)
        if n not in looks:
            raise ValueError(_NO_LOOK.format(list(looks), n))
        self._flips, self._kind = signs(n), kind
        row = of_length_one(differences)
        self._looks = []
        for look in [look for look in looks if look <= n]:
            means = np.abs(self._flips[:, :look] @ row[:look])
            order = np.argsort(-means)
            self._looks.append((look / looks[-1], order, means[order]))

    def crosses(self, alpha: float) -> bool:
        """Whether the signs as they are have been rejected at this look or before."""
        rejected = np.zeros(len(self._flips), dtype=bool)
        for fraction, order, means in self._looks:
            most = math.floor(spent(fraction, alpha, self._kind) * len(rejected) * (1 + _ROUNDING))
            # More than that cannot be rejected, so only the first few matter.
            top = order[: most + 1]
            left = ~rejected[top]
            room = most - int(rejected.sum())
            first_kept = means[int(np.argmax(np.cumsum(left) > room))]
            rejected[top[left & (means[: most + 1] > first_kept + TIE)]] = True
        return bool(rejected[0])


def _check(looks: Sequence[float], most: float) -> None:
    ascending = all(first < second for first, second in itertools.pairwise([0.0, *looks]))
    if not (looks and ascending and looks[-1] <= most):
        raise ValueError(f"looks must ascend from above 0 to {most:g} at most, got {list(looks)}")
