"""Two one-sided tests of equivalence."""

import math

import numpy as np
import scipy.stats

_QUANTILES = 4000


def tost_power(margin: float, seeds: int, alpha: float) -> float:
    """Chance that TOST at `alpha` shows equivalence of two equal arms (Schuirmann 1987).

    `margin` in standard deviations of the paired differences, which are normal.
    """
    spread = scipy.stats.chi(seeds - 1).ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    reach = scipy.stats.t(seeds - 1).ppf(1 - alpha) * spread / math.sqrt(seeds - 1)
    inside = 2 * scipy.stats.norm.cdf(math.sqrt(seeds) * margin - reach) - 1
    return float(np.maximum(inside, 0).mean())
