"""How even the seeds must be for a planned study to decide: said before anything runs."""

import math

import numpy as np
import scipy.stats
from scipy.optimize import brentq
from statsmodels.stats.power import TTestPower

from ablations.spec import Hypothesis
from ablations.verdicts.judge import FEWEST_SEEDS, PLANNED_POWER

TRUE_EFFECT = 2
"""True effect that power is stated for, in smallest effects of interest (METRICS C.6: 1.5 to 2)."""

_QUANTILES = 4000


def tost_power(margin: float, seeds: int, alpha: float) -> float:
    """Chance that TOST at `alpha` shows equivalence of two equal arms (Schuirmann 1987).

    `margin` in standard deviations of the paired differences, which are normal.
    """
    spread = scipy.stats.chi(seeds - 1).ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    reach = scipy.stats.t(seeds - 1).ppf(1 - alpha) * spread / math.sqrt(seeds - 1)
    inside = 2 * scipy.stats.norm.cdf(math.sqrt(seeds) * margin - reach) - 1
    return float(np.maximum(inside, 0).mean())


def largest_deviation(hypothesis: Hypothesis, seeds: int) -> float | None:
    """Largest standard deviation of paired differences at which `seeds` decide, metric's units.

    To decide is to find, in a share PLANNED_POWER of studies, a true difference of TRUE_EFFECT
    smallest effects by a two-sided t test; for `holds`, to show by TOST that equal arms are. Before
    adjustment for other hypotheses. None below FEWEST_SEEDS, where nothing is decided.
    """
    if seeds < FEWEST_SEEDS:
        return None
    if hypothesis.direction == "holds":
        margin = brentq(
            lambda margin: tost_power(margin, seeds, hypothesis.alpha) - PLANNED_POWER, 1e-3, 1e3
        )
        return hypothesis.smallest_effect / float(margin)
    standardised = TTestPower().solve_power(nobs=seeds, alpha=hypothesis.alpha, power=PLANNED_POWER)
    return TRUE_EFFECT * hypothesis.smallest_effect / float(standardised)


def power_text(hypothesis: Hypothesis, seeds: int) -> str:
    """What `seeds` can decide about a hypothesis, in plain words."""
    deviation = largest_deviation(hypothesis, seeds)
    if deviation is None:
        return f"{seeds} seeds decide nothing; {FEWEST_SEEDS} are the fewest"
    goal = f"find a true difference of {TRUE_EFFECT * hypothesis.smallest_effect:g}"
    if hypothesis.direction == "holds":
        goal = f"show that equal arms differ by less than {hypothesis.smallest_effect:g}"
    return (
        f"{seeds} seeds {goal} with a chance of {100 * PLANNED_POWER:.0f} % if the standard "
        f"deviation of paired differences is {deviation:.2g} or less"
    )
