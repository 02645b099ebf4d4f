"""What decided a label, in words, and how many seeds would decide an open one."""

import math
from collections.abc import Sequence

import scipy.stats

from ablations.spec import Hypothesis
from ablations.statistics.sample_size import MOST_SEEDS, seeds_for
from ablations.verdicts.rule import FEWEST_SEEDS, Label, Tag, decide, signed
from ablations.verdicts.summary import Interval, Summary

PLANNED_POWER = 0.8
"""Power that `Verdict.seeds_needed` plans for."""

PLANNED_EFFECT = 1.5
"""Effect planned for, in smallest effects of interest.

A true effect of exactly one is called supported half the time by construction, since the rule asks
for a mean of at least one; so METRICS C.6 plans at 1.5 to 2.
"""


def decided(
    hypothesis: Hypothesis, summary: Summary, p_adjusted: float | None, family_size: int
) -> tuple[Label, tuple[Tag, ...], str]:
    """Label, tags and reason for complete data of FEWEST_SEEDS or more."""
    mean, interval, equivalence = summary.mean, summary.interval, summary.interval_equivalence
    assert mean is not None
    assert interval is not None
    assert equivalence is not None
    assert summary.p is not None
    label, tags = decide(
        direction=hypothesis.direction,
        smallest_effect=hypothesis.smallest_effect,
        alpha=hypothesis.alpha,
        mean=mean,
        interval=interval,
        interval_equivalence=equivalence,
        p=summary.p,
        p_adjusted=summary.p if p_adjusted is None else p_adjusted,
    )
    s = f"{hypothesis.smallest_effect:g}"
    wide = f"{_percent(1 - hypothesis.alpha)} interval"
    narrow = f"{_percent(1 - 2 * hypothesis.alpha)} interval {_ends_text(equivalence)}"
    if hypothesis.direction == "holds":
        changes = f"changes by {mean:.3g}; "
        return (
            label,
            tags,
            changes
            + {
                "supported": f"{narrow} is inside ±{s}",
                "refuted": f"{wide} {_ends_text(interval)} is outside ±{s}",
                "inconclusive": f"{narrow} is not inside ±{s}, and {wide} {_ends_text(interval)} "
                "not outside",
            }[label],
        )
    effect, (low, high) = signed(hypothesis.direction, mean, interval)
    says = f"{hypothesis.direction} by {effect:.3g}, {wide} {_ends_text((low, high))}"
    alone = f"p {summary.p:.2g}"
    adjusted = f"p {p_adjusted:.2g}"
    if family_size > 1:
        adjusted += f" after Holm over {family_size} hypotheses"
    if label == "supported":
        found = "all of it" if "strong" in tags else "above 0, mean"
        return label, tags, f"{says}: {found} at least {s}; {adjusted}"
    if label == "equivalent":
        nonzero = f", though not 0 ({alone})" if tags else ""
        return label, tags, f"changes by {mean:.3g}; {narrow} is inside ±{s}{nonzero}"
    if label == "refuted":
        found = "the opposite of the prediction" if high < 0 else f"less than {s} throughout"
        return label, tags, f"{says}: {found}"
    if low <= 0:
        return label, tags, f"{says}: excludes neither 0 nor {s}"
    if effect < hypothesis.smallest_effect:
        return label, tags, f"{says}: above 0, mean less than {s}, which is not excluded"
    return label, tags, f"{says}: mean at least {s}, but {adjusted}"


def seeds_to_plan(hypothesis: Hypothesis, summary: Summary, family_size: int) -> int | None:
    """Seeds to plan a new study with, at PLANNED_POWER; not what would settle these data.

    The standard deviation is the upper 80 % limit of the one observed (METRICS C.6, step 2), the
    test is t as an approximation. `rises` and `falls`: two-sided, at a true effect of
    PLANNED_EFFECT smallest effects and alpha over the size of the family (Holm's first step); with
    the sign-flip test, also enough for it to reach that level. `holds`: TOST at a true effect of 0,
    as two one-sided tests that share the risk of missing.
    """
    n, alpha = summary.n, hypothesis.alpha
    assert summary.standard_deviation is not None
    inflated = summary.standard_deviation * math.sqrt((n - 1) / scipy.stats.chi2.ppf(0.2, n - 1))
    # Beyond 4 the fewest seeds are enough anyway; the limit keeps the power computable.
    margin = min(4.0, hypothesis.smallest_effect / inflated) if inflated > 0 else 4.0
    if hypothesis.direction == "holds":
        power = (1 + PLANNED_POWER) / 2
        needed = seeds_for(margin, alpha=alpha, power=power, alternative="larger")
        return None if needed is None else max(FEWEST_SEEDS, needed)
    level = alpha / family_size
    needed = seeds_for(PLANNED_EFFECT * margin, alpha=level, power=PLANNED_POWER)
    reachable = 1 + math.ceil(-math.log2(level)) if hypothesis.test == "signflip" else 0
    return None if needed is None else max(FEWEST_SEEDS, needed, reachable)


def seeds_text(hypothesis: Hypothesis, n: int, needed: int | None) -> str:
    truth = (
        "to show that nothing changes"
        if hypothesis.direction == "holds"
        else f"for a true effect of {PLANNED_EFFECT * hypothesis.smallest_effect:g}"
    )
    power = f"{_percent(PLANNED_POWER)} power {truth}"
    if needed is None:
        return f"more than {MOST_SEEDS:,} seeds are needed for {power}"
    return f"{needed} seeds are needed for {power}; {n} ran"


def _ends_text(interval: Interval) -> str:
    return f"[{interval[0]:.3g}, {interval[1]:.3g}]"


def _percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def count_of(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def seed_list(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
