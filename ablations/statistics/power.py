"""Power of the tests behind a verdict: what a number of seeds can find, and how many find it.

One convention, wherever power is stated: a chance of POWER, of normal paired differences, to find a
true effect of PLANNED_EFFECT smallest effects of interest by a two-sided t test, or to show by two
one-sided t tests (TOST) that equal arms are. The level is that of Holm's first step, alpha over the
number of hypotheses in the family. The t test stands for the sign-flip test, which needs about as
many seeds or somewhat more, and never fewer than :func:`fewest_for_signs`.
"""

import bisect
import math
from collections.abc import Callable

import numpy as np
import scipy.stats
from scipy.optimize import brentq

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


def t_power(effect: float, seeds: int, alpha: float) -> float:
    """Chance that a two-sided t test at `alpha` finds a true effect, over its deviation, >= 0."""
    critical = scipy.stats.t(seeds - 1).isf(alpha / 2)
    shifted = scipy.stats.nct(seeds - 1, math.sqrt(seeds) * effect)
    # The far tail comes out as NaN where it is too small for a number.
    return float(shifted.sf(critical) + np.nan_to_num(shifted.cdf(-critical)))


def tost_power(margin: float, seeds: int, alpha: float) -> float:
    """Chance that TOST at `alpha` shows equivalence of two equal arms (Schuirmann 1987).

    `margin` in standard deviations of the paired differences, which are normal.
    """
    spread = scipy.stats.chi(seeds - 1).ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    reach = scipy.stats.t(seeds - 1).ppf(1 - alpha) * spread / math.sqrt(seeds - 1)
    inside = 2 * scipy.stats.norm.cdf(math.sqrt(seeds) * margin - reach) - 1
    return float(np.maximum(inside, 0).mean())


Power = Callable[[float, int, float], float]
"""One of the two above."""


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


def effect_for(power: Power, seeds: int, alpha: float, chance: float = POWER) -> float:
    """Effect or margin, in standard deviations, at which `power` of `seeds` >= 2 is `chance`."""
    high = 1.0
    while power(high, seeds, alpha) < chance:
        high *= 2
    return float(brentq(lambda effect: power(effect, seeds, alpha) - chance, 0.0, high))


def upper_deviation(deviation: float, n: int) -> float:
    """Upper 80 % limit of a standard deviation that n >= 2 normal differences showed.

    Seeds planned with the observed one would be too few half the time.
    """
    return deviation * math.sqrt((n - 1) / scipy.stats.chi2.ppf(0.2, n - 1))


def fewest_for_signs(alpha: float) -> int:
    """Fewest differences at which the two-sided sign-flip p-value, 2 / 2**n at least, is alpha."""
    return 1 + math.ceil(-math.log2(alpha))
