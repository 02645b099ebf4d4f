"""The least p that seeds can attain, and how many seeds an open verdict needs.

Power itself is simulated, in :mod:`ablations.verdicts.power`. Seeds of an open verdict are counted
by the formulas of :mod:`ablations.statistics.power`, at the level of Holm's first step over the
family, which is enough whatever the others of it show.
"""

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from ablations.spec import Hypothesis
from ablations.statistics.flips import EXACT_SEEDS
from ablations.statistics.power import (
    MOST_SEEDS,
    PLANNED_EFFECT,
    POWER,
    found_power,
    seeds_for,
    sign_flip_level,
    tost_power,
    upper_deviation,
)
from ablations.statistics.sign_flip import signflip_p
from ablations.statistics.summary import Summary
from ablations.verdicts.rule import FEWEST_SEEDS


def family_sizes(hypotheses: Mapping[str, Hypothesis]) -> dict[str, int]:
    """Of each family, how many of its hypotheses predict a difference; `holds` is in none."""
    return dict(Counter(h.family for h in hypotheses.values() if h.direction != "holds"))


def least_p(hypothesis: Hypothesis, seeds: int) -> float:
    """The least p that any differences at `seeds` seeds can have, after max-T over any family.

    For `holds` that of equivalence. 0 for a t test, which has none.
    """
    if hypothesis.direction == "holds":
        return 2.0**-seeds
    if hypothesis.test != "signflip":
        return 0.0
    return float(signflip_p(np.ones(seeds)))


def fewest_seeds(hypothesis: Hypothesis) -> int | None:
    """Fewest seeds at which it can be supported; None where no number of sign flips reaches."""
    if hypothesis.direction == "holds":
        return max(FEWEST_SEEDS, math.ceil(-math.log2(hypothesis.alpha)))
    for seeds in range(FEWEST_SEEDS, EXACT_SEEDS + 2):
        if least_p(hypothesis, seeds) <= hypothesis.alpha:
            return seeds
    return None


def seeds_to_plan(hypothesis: Hypothesis, summary: Summary, family_size: int) -> int | None:
    """Seeds to plan a new study with; not what would settle these data. None beyond MOST_SEEDS.

    The standard deviation is the upper 80 % limit of the one observed.
    """
    assert summary.standard_deviation is not None
    deviation = upper_deviation(summary.standard_deviation, summary.n)
    # Beyond 4 the fewest seeds are enough anyway; the limit keeps the power computable.
    margin = min(4.0, hypothesis.smallest_effect / deviation) if deviation > 0 else 4.0

    def power(effect: float, seeds: int, level: float) -> float:
        if hypothesis.direction == "holds":
            return tost_power(effect, seeds, level)
        if hypothesis.test == "signflip":
            level = min(level, sign_flip_level(hypothesis.alpha, seeds))
        return found_power(PLANNED_EFFECT * effect, effect, seeds, level) if level > 0 else 0.0

    size = 1 if hypothesis.direction == "holds" else family_size
    needed, fewest = seeds_for(power, margin, hypothesis.alpha / size), fewest_seeds(hypothesis)
    return None if needed is None or fewest is None else max(fewest, needed)


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
