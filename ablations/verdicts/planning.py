"""The least p that seeds can attain, and how many seeds an open verdict needs.

Power itself is simulated, in :mod:`ablations.verdicts.power`. Seeds of an open verdict are counted
by the formulas of :mod:`ablations.statistics.power`, at the level of Holm's first step over the
family, which is enough whatever the others of it show.
"""

from collections.abc import Mapping

import numpy as np

from ablations.spec import Hypothesis, Multiplicity
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
from ablations.statistics.proportions import fisher_p
from ablations.statistics.sign_flip import signflip_p
from ablations.statistics.summary import Summary
from ablations.verdicts.families import families_of
from ablations.verdicts.rule import FEWEST_SEEDS


def holm_sizes(hypotheses: Mapping[str, Hypothesis], multiplicity: Multiplicity) -> dict[str, int]:
    """By how many its least p is multiplied, of each hypothesis: the size of its family by Holm.

    1 by the other methods, whose least p is that of one test, and for `holds`.
    """
    sizes = dict.fromkeys(hypotheses, 1)
    for names in families_of(hypotheses):
        family = [hypotheses[name] for name in names]
        joint = multiplicity.by == "max-t" and all(one.by_signs for one in family)
        in_order = multiplicity.by == "fixed-sequence"
        if not (family[0].secondary or joint or in_order or family[0].direction == "holds"):
            sizes |= dict.fromkeys(names, len(names))
    return sizes


def least_p(hypothesis: Hypothesis, seeds: int, size: int = 1) -> float:
    """The least p that any differences at `seeds` seeds can have, after Holm over `size` tests.

    For `holds` that of equivalence: of how runs end, where all agree. 0 for a t test, which has
    none.
    """
    if hypothesis.direction == "holds":
        # The upper end of Clopper and Pearson for no seed of these is 1 - p ** (1 / seeds).
        beyond = max(0.0, 1 - hypothesis.smallest_effect) ** seeds if hypothesis.endpoint else 0.0
        return min(1.0, max(2.0**-seeds, len(hypothesis.contrast) * beyond))
    if hypothesis.endpoint and not hypothesis.paired:
        return min(1.0, size * fisher_p(seeds, seeds, 0, seeds))
    if hypothesis.by_signs:
        return min(1.0, size * float(signflip_p(np.ones(seeds))))
    return 0.0


def fewest_seeds(hypothesis: Hypothesis, size: int = 1) -> int | None:
    """Fewest seeds at which it can be supported; None where no number of sign flips reaches."""
    # The random flips of 17 seeds hold both patterns that are as extreme, those of 18 none.
    most = MOST_SEEDS if hypothesis.direction == "holds" else EXACT_SEEDS + 2
    for seeds in range(FEWEST_SEEDS, most + 1):
        if least_p(hypothesis, seeds, size) <= hypothesis.alpha:
            return seeds
    return None


def seeds_to_plan(
    hypothesis: Hypothesis, summary: Summary, family_size: int, *, by_holm: bool = False
) -> int | None:
    """Seeds to plan a new study with; not what would settle these data. None beyond MOST_SEEDS.

    The standard deviation is the upper 80 % limit of the one observed. Sign flips must attain alpha
    itself, or by Holm their share of it.
    """
    assert summary.standard_deviation is not None
    deviation = upper_deviation(summary.standard_deviation, summary.n)
    # Beyond 4 the fewest seeds are enough anyway; the limit keeps the power computable.
    margin = min(4.0, hypothesis.smallest_effect / deviation) if deviation > 0 else 4.0

    size = 1 if hypothesis.direction == "holds" else family_size
    attained_by = size if by_holm else 1

    def power(effect: float, seeds: int, level: float) -> float:
        if hypothesis.direction == "holds":
            return tost_power(effect, seeds, level)
        if hypothesis.by_signs:
            level = min(level, sign_flip_level(hypothesis.alpha / attained_by, seeds))
        return found_power(PLANNED_EFFECT * effect, effect, seeds, level) if level > 0 else 0.0

    needed = seeds_for(power, margin, hypothesis.alpha / size)
    fewest = fewest_seeds(hypothesis)
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
