"""How many seeds decide a hypothesis: said before anything runs, and of an open verdict.

Numbers and their one convention are those of :mod:`ablations.statistics.power`.
"""

from collections import Counter
from collections.abc import Mapping

from ablations.spec import Hypothesis
from ablations.statistics.power import (
    MOST_SEEDS,
    PLANNED_EFFECT,
    POWER,
    Power,
    effect_for,
    fewest_for_signs,
    seeds_for,
    t_power,
    tost_power,
    upper_deviation,
)
from ablations.statistics.summary import Summary
from ablations.verdicts.rule import FEWEST_SEEDS


def family_sizes(hypotheses: Mapping[str, Hypothesis]) -> dict[str, int]:
    """Of each family, how many of its hypotheses predict a difference; `holds` is in none."""
    return dict(Counter(h.family for h in hypotheses.values() if h.direction != "holds"))


def fewest_seeds(hypothesis: Hypothesis, family_size: int) -> int:
    """Fewest seeds at which it can be supported: FEWEST_SEEDS, or more for Holm's first step."""
    if hypothesis.direction == "holds" or hypothesis.test != "signflip":
        return FEWEST_SEEDS
    return max(FEWEST_SEEDS, fewest_for_signs(hypothesis.alpha / family_size))


def largest_deviation(hypothesis: Hypothesis, seeds: int, family_size: int = 1) -> float | None:
    """Largest standard deviation of paired differences at which `seeds` decide, metric's units.

    None below :func:`fewest_seeds`.
    """
    if seeds < fewest_seeds(hypothesis, family_size):
        return None
    power, effect, level = _planned(hypothesis, family_size)
    return effect / effect_for(power, seeds, level)


def power_text(hypothesis: Hypothesis, seeds: int, family_size: int = 1) -> str:
    """What `seeds` can decide about a hypothesis, in plain words."""
    deviation = largest_deviation(hypothesis, seeds, family_size)
    if deviation is None:
        if seeds < FEWEST_SEEDS:
            return f"{seeds} seeds decide nothing; {FEWEST_SEEDS} are the fewest"
        return (
            f"{seeds} seeds cannot support it: the least p of so many sign flips, "
            f"{2 / 2**seeds:.2g}, is above {hypothesis.alpha / family_size:.2g} (Holm over "
            f"{family_size}); {fewest_seeds(hypothesis, family_size)} are the fewest"
        )
    _, effect, level = _planned(hypothesis, family_size)
    goal, test = f"find a true difference of {effect:g}", f"t test at {level:.3g}"
    if hypothesis.direction == "holds":
        goal = f"show that equal arms differ by less than {effect:g}"
        test = f"two one-sided t tests at {level:.3g}"
    return (
        f"{seeds} seeds {goal} with a chance of {100 * POWER:.0f} % if the standard deviation of "
        f"paired differences is {deviation:.2g} or less ({test})"
    )


def seeds_to_plan(hypothesis: Hypothesis, summary: Summary, family_size: int) -> int | None:
    """Seeds to plan a new study with; not what would settle these data. None beyond MOST_SEEDS.

    The standard deviation is the upper 80 % limit of the one observed.
    """
    assert summary.standard_deviation is not None
    deviation = upper_deviation(summary.standard_deviation, summary.n)
    power, effect, level = _planned(hypothesis, family_size)
    # Beyond 4 the fewest seeds are enough anyway; the limit keeps the power computable.
    most = 4 * effect / hypothesis.smallest_effect
    standardised = min(most, effect / deviation) if deviation > 0 else most
    needed = seeds_for(power, standardised, level)
    return None if needed is None else max(fewest_seeds(hypothesis, family_size), needed)


def seeds_text(hypothesis: Hypothesis, n: int, needed: int | None) -> str:
    """How many seeds an open verdict needs, in plain words."""
    truth = (
        "to show that nothing changes"
        if hypothesis.direction == "holds"
        else f"for a true effect of {PLANNED_EFFECT * hypothesis.smallest_effect:g}"
    )
    power = f"{100 * POWER:.0f} % power {truth}"
    if needed is None:
        return f"more than {MOST_SEEDS:,} seeds are needed for {power}"
    return f"{needed} seeds are needed for {power}; {n} ran"


def _planned(hypothesis: Hypothesis, family_size: int) -> tuple[Power, float, float]:
    """The power that counts, the true effect or margin in the metric's units, and the level."""
    if hypothesis.direction == "holds":
        return tost_power, hypothesis.smallest_effect, hypothesis.alpha
    effect = PLANNED_EFFECT * hypothesis.smallest_effect
    return t_power, effect, hypothesis.alpha / family_size
