"""How even the seeds must be for a planned study to decide: said before anything runs."""

from scipy.optimize import brentq
from statsmodels.stats.power import TTestPower

from ablations.spec import Hypothesis
from ablations.statistics.equivalence import tost_power
from ablations.verdicts.reasons import PLANNED_POWER
from ablations.verdicts.rule import FEWEST_SEEDS

TRUE_EFFECT = 2
"""True effect that power is stated for, in smallest effects of interest (METRICS C.6: 1.5 to 2)."""


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
