"""The rule that turns intervals and p-values into a label."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ablations.spec import Direction
from ablations.statistics.effect_sizes import Interval

Label = Literal["supported", "refuted", "equivalent", "insensitive", "inconclusive", "failed"]

Tag = Literal["strong", "negligible-but-nonzero", "opposite"]

ControlFound = Literal["differs", "alike", "missing", "undeclared"]
"""What a control shows: it differs by the smallest effect or more; it does not; it has no numbers;
or none was declared."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """What the declared control of a hypothesis shows on the same end point."""

    found: ControlFound
    mean: float | None = None
    """Its mean difference, in the metric's units; None where it has no numbers."""
    interval: Interval | None = None
    """t interval of that at level 1 - alpha."""

    def to_json(self) -> dict[str, Any]:
        """Fields by name as JSON types."""
        ends = None if self.interval is None else list(self.interval)
        return {"found": self.found, "mean": self.mean, "interval": ends}


class Largest(NamedTuple):
    """The largest effect that anything in a study has on an end point."""

    effect: float
    """In the metric's units, >= 0."""
    of: str
    """The arm that has it, or `its own contrast` or `its control`."""


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
    p_adjusted: float,
    p_equivalence: float = 0.0,
    least_p: float = 0.0,
    sensitivity: float = math.inf,
    control: ControlFound = "differs",
) -> tuple[Label, tuple[Tag, ...]]:
    """The label of complete data, and its tags (docs/statistics.md has it in plain words).

    With s the smallest effect, and mean and intervals signed in the predicted direction, the first
    that is true of: insensitive, if sensitivity < 1; supported, if p_adjusted <= alpha, interval
    not below 0 and mean >= s (tag strong, if interval not below s); where it is shown to be small,
    by interval_equivalence inside (-s, s) and p_equivalence <= alpha: equivalent if the control
    differs, insensitive if it is alike; refuted, if interval below s; inconclusive. For `differs`
    the direction is that of the mean, and there is no refuted. For `holds`, after insensitive:
    where it is small, supported if the control differs, insensitive if it is alike, else
    inconclusive; refuted, if interval is entirely outside; inconclusive.

    strong and refuted rest on an interval alone, which has no width where differences are equal:
    neither is given if least_p > alpha.

    Where p_adjusted <= alpha, what is small is tagged negligible-but-nonzero, and a mean against
    the prediction that is not refuted opposite.

    Args:
        direction: as predicted.
        smallest_effect: s, > 0.
        alpha: error rate, in (0, 0.5).
        mean: mean difference, arm minus against, not yet signed.
        interval: its interval at level 1 - alpha, low then high, not yet signed.
        interval_equivalence: the same at level 1 - 2 alpha.
        p_adjusted: two-sided p-value, adjusted within the family.
        p_equivalence: p-value of a mean outside (-s, s).
        least_p: least two-sided p-value that so many signs can show, whatever the differences.
        sensitivity: largest effect of any arm on the end point over s, >= 0.
        control: what the declared control shows.
    """
    s = smallest_effect
    inside = is_small(s, alpha, interval_equivalence, p_equivalence)
    effect, (low, high) = signed(direction, mean, interval)
    nonzero = p_adjusted <= alpha
    tags: tuple[Tag, ...] = ("negligible-but-nonzero",) if inside and nonzero else ()
    small = tags
    if nonzero and effect < 0 and direction != "holds":
        tags += ("opposite",)
    if sensitivity < 1:
        return "insensitive", tags
    if direction == "holds":
        if inside and control == "differs":
            return "supported", tags
        if inside:
            return ("insensitive" if control == "alike" else "inconclusive"), tags
        outside = interval[0] >= s or interval[1] <= -s
        return ("refuted" if outside and least_p <= alpha else "inconclusive"), tags
    if nonzero and low >= 0 and effect >= s:
        return "supported", (("strong",) if low >= s and least_p <= alpha else ())
    if inside and control in ("differs", "alike"):
        return ("equivalent" if control == "differs" else "insensitive"), tags
    if high < s and direction != "differs" and least_p <= alpha:
        return "refuted", small
    return "inconclusive", tags


def is_small(
    smallest_effect: float, alpha: float, interval_equivalence: Interval, p_equivalence: float
) -> bool:
    """Whether an effect is shown to be smaller than the smallest one, whatever that is worth."""
    low, high = interval_equivalence
    return -smallest_effect < low and high < smallest_effect and p_equivalence <= alpha


def signed(
    direction: Direction, mean: float, interval: Interval
) -> tuple[float, tuple[float, float]]:
    """Mean and interval counted positive in the predicted direction, or in the mean's own."""
    if direction == "falls" or (direction == "differs" and mean < 0):
        return -mean, (-interval[1], -interval[0])
    return mean, interval
