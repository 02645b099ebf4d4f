"""The rule that turns intervals and p-values into a label."""

from typing import Literal

from ablations.spec import Direction
from ablations.statistics.effect_sizes import Interval

Label = Literal["supported", "refuted", "equivalent", "inconclusive", "failed"]

Tag = Literal["strong", "negligible-but-nonzero"]

FEWEST_SEEDS = 6
"""Fewest seeds that get a label other than inconclusive: 2 / 2**6 is the first below 0.05."""


def decide(
    *,
    direction: Direction,
    smallest_effect: float,
    alpha: float,
    mean: float,
    interval: Interval,
    interval_equivalence: Interval,
    p: float,
    p_adjusted: float,
) -> tuple[Label, tuple[Tag, ...]]:
    """The label of complete data, and its tags (docs/statistics.md has it in plain words).

    With s the smallest effect, and mean and intervals signed in the predicted direction, the first
    that is true of: supported, if p_adjusted <= alpha, interval above 0 and mean >= s (tag strong,
    if interval not below s); equivalent, if interval_equivalence is inside (-s, s) (tag
    negligible-but-nonzero, if p <= alpha); refuted, if interval below s; inconclusive. For
    `differs` the direction is that of the mean, and there is no refuted. For `holds`: supported, if
    interval_equivalence is inside (-s, s); refuted, if interval is entirely outside; inconclusive.

    Args:
        direction: as predicted.
        smallest_effect: s, > 0.
        alpha: error rate, in (0, 0.5).
        mean: mean difference, arm minus against, not yet signed.
        interval: its interval at level 1 - alpha, low then high, not yet signed.
        interval_equivalence: the same at level 1 - 2 alpha.
        p: two-sided p-value.
        p_adjusted: the same, Holm-adjusted; not used for `holds`.
    """
    s = smallest_effect
    inside = -s < interval_equivalence[0] and interval_equivalence[1] < s
    if direction == "holds":
        if inside:
            return "supported", ()
        outside = interval[0] >= s or interval[1] <= -s
        return ("refuted" if outside else "inconclusive"), ()
    effect, (low, high) = signed(direction, mean, interval)
    if p_adjusted <= alpha and low > 0 and effect >= s:
        return "supported", (("strong",) if low >= s else ())
    if inside:
        return "equivalent", (("negligible-but-nonzero",) if p <= alpha else ())
    excluded = high < s and direction != "differs"
    return ("refuted" if excluded else "inconclusive"), ()


def signed(
    direction: Direction, mean: float, interval: Interval
) -> tuple[float, tuple[float, float]]:
    """Mean and interval counted positive in the predicted direction, or in the mean's own."""
    if direction == "falls" or (direction == "differs" and mean < 0):
        return -mean, (-interval[1], -interval[0])
    return mean, interval
