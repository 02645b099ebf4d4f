"""Power in closed form: seeds that an open verdict needs, and what it is that they are needed for.

The power of a study before it runs is simulated, by :mod:`ablations.verdicts.power`. These formulas
stand in for the simulation where seeds are counted for a new study: normal paired differences, and
t tests at the level that sign flips can reach.
"""

import bisect
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.stats

POWER = 0.8
"""Chance of deciding that seeds are planned for."""

PLANNED_EFFECT = 1.5
"""True effect that is planned for, in smallest effects of interest.

A true effect of exactly one is called supported half the time by construction, since the rule asks
for a mean of at least one.
"""

MOST_SEEDS = 10_000
"""Where the search for a number of seeds gives up."""

_QUANTILES = 4000


def found_power(effect: float, at_least: float, seeds: int, alpha: float) -> float:
    """Chance that a one-sided t interval at `alpha` / 2 is above 0 and the mean `at_least`.

    Effects in standard deviations of the paired differences, which are normal.
    """
    spread = _spread(seeds)
    reach = scipy.stats.t(seeds - 1).isf(alpha / 2) * spread / math.sqrt(seeds)
    above = math.sqrt(seeds) * (effect - np.maximum(reach, at_least))
    return float(scipy.stats.norm.cdf(above).mean())


def sign_flip_level(alpha: float, seeds: int) -> float:
    """The largest p-value of `seeds` sign flips that is `alpha` at most; 0 if there is none."""
    return math.floor(alpha * 2.0 ** (seeds - 1)) / 2.0 ** (seeds - 1) if seeds < 50 else alpha


def tost_power(margin: float, seeds: int, alpha: float) -> float:
    """Chance that TOST at `alpha` shows equivalence of two equal arms (Schuirmann 1987).

    `margin` in standard deviations of the paired differences, which are normal.
    """
    reach = scipy.stats.t(seeds - 1).isf(alpha) * _spread(seeds)
    inside = 2 * scipy.stats.norm.cdf(math.sqrt(seeds) * margin - reach) - 1
    return float(np.maximum(inside, 0).mean())


def _spread(seeds: int) -> npt.NDArray[np.float64]:
    """Quantiles of the sample deviation of `seeds` differences of deviation 1."""
    of_chi = scipy.stats.chi(seeds - 1).ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    return np.asarray(of_chi / math.sqrt(seeds - 1))


Power = Callable[[float, int, float], float]
"""Of an effect or margin, in standard deviations, for a number of seeds at a level."""


def seeds_for(power: Power, effect: float, alpha: float, chance: float = POWER) -> int | None:
    """Fewest seeds, from 2 up to MOST_SEEDS, at which `power` is at least `chance`; None beyond."""

    def enough(seeds: int) -> bool:
        return power(effect, seeds, alpha) >= chance

    high = 2
    while not enough(high):
        high *= 2
        if high > 2 * MOST_SEEDS:
            return None
    found = bisect.bisect_left(range(high + 1), True, lo=max(2, high // 2), key=enough)
    return found if found <= MOST_SEEDS else None


def upper_deviation(deviation: float, n: int) -> float:
    """Upper 80 % limit of a standard deviation that n >= 2 normal differences showed.

    Seeds planned with the observed one would be too few half the time.
    """
    return deviation * math.sqrt((n - 1) / scipy.stats.chi2.ppf(0.2, n - 1))
