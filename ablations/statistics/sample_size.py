"""How many seeds a test needs."""

import bisect
from typing import Literal

from statsmodels.stats.power import TTestPower

MOST_SEEDS = 10_000
"""Where the search for a number of seeds gives up."""


def seeds_for(
    effect: float,
    *,
    alpha: float,
    power: float,
    alternative: Literal["two-sided", "larger"] = "two-sided",
) -> int | None:
    """Smallest n at which a one-sample t test at `alpha` has `power` for a true effect.

    Args:
        effect: true mean over standard deviation, > 0.
        alpha: error rate, in (0, 1).
        power: probability of rejecting, in (0, 1).
        alternative: two-sided, or larger for a one-sided test.

    Returns:
        The number, from 2 up to MOST_SEEDS; None beyond.
    """

    def enough(n: int) -> bool:
        reached = TTestPower().power(effect, n, alpha, alternative=alternative)
        return bool(reached >= power)

    high = 2
    while not enough(high):
        high *= 2
        if high > 2 * MOST_SEEDS:
            return None
    found = bisect.bisect_left(range(high + 1), True, lo=max(2, high // 2), key=enough)
    return found if found <= MOST_SEEDS else None
