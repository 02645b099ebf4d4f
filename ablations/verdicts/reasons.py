"""What decided a label, in words."""

import math
from collections.abc import Sequence

from ablations.spec import Hypothesis
from ablations.statistics.effect_sizes import Interval
from ablations.statistics.summary import Summary
from ablations.verdicts.rule import Control, Label, Largest, Tag, decide, is_small, signed

OPPOSITE = {"rises": "falls", "falls": "rises"}

DIFFERS = Control(found="differs")


def decided(
    hypothesis: Hypothesis,
    summary: Summary,
    p_adjusted: float,
    adjustment: str = "",
    largest: Largest | None = None,
    control: Control = DIFFERS,
    least_p: float = 0.0,
) -> tuple[Label, tuple[Tag, ...], str]:
    """Label, tags and reason for complete data of FEWEST_SEEDS or more.

    `adjustment` says what p_adjusted was adjusted for, in words that follow it. Without `largest`
    the end point counts as one that moves. `least_p` is as `decide` takes it.
    """
    mean, interval, equivalence = summary.mean, summary.interval, summary.interval_equivalence
    assert mean is not None
    assert interval is not None
    assert equivalence is not None
    assert summary.p_equivalence is not None
    s, alpha = hypothesis.smallest_effect, hypothesis.alpha
    label, tags = decide(
        direction=hypothesis.direction,
        smallest_effect=s,
        alpha=alpha,
        mean=mean,
        interval=interval,
        interval_equivalence=equivalence,
        p_adjusted=p_adjusted,
        p_equivalence=summary.p_equivalence,
        least_p=least_p,
        sensitivity=largest.effect / s if largest else math.inf,
        control=control.found,
    )
    changes = f"changes by {mean:.3g}"
    wide = f"{_percent(1 - alpha)} interval"
    inside = f"{_percent(1 - 2 * alpha)} interval {_ends_text(equivalence)} is inside ±{s:g}"
    adjusted = f"p {p_adjusted:.2g}{adjustment}"
    small = is_small(s, alpha, equivalence, summary.p_equivalence)
    if label == "insensitive" and largest and largest.effect < s:
        return (
            label,
            tags,
            f"{changes}, {wide} {_ends_text(interval)}{_not_zero(tags, adjusted)}; no arm moves "
            f"this end point by {s:g}: the largest effect is {largest.effect:.3g} ({largest.of})",
        )
    too_few = f"but the least p of so many signs is {least_p:.2g}" if least_p > alpha else ""
    if label in ("insensitive", "equivalent") or (small and label == "inconclusive"):
        excluded = label == "inconclusive" and hypothesis.direction in OPPOSITE
        return (
            label,
            tags,
            f"{changes}; {inside}{_not_zero(tags, adjusted)}{_control_text(control, s)}"
            + (f"; it would be refuted, {too_few}" if excluded and too_few else ""),
        )
    if hypothesis.direction == "holds":
        narrow = f"{_percent(1 - 2 * alpha)} interval {_ends_text(equivalence)}"
        outside = f"{wide} {_ends_text(interval)} is outside ±{s:g}"
        open_ = f"{narrow} is not inside ±{s:g}, and {wide} {_ends_text(interval)} not outside"
        if -s < equivalence[0] and equivalence[1] < s:
            open_ = f"{inside}, but its p is {summary.p_equivalence:.2g}"
        elif too_few and (interval[0] >= s or interval[1] <= -s):
            open_ = f"{outside}, {too_few}"
        text = {
            "supported": f"{inside}{_not_zero(tags, adjusted)}{_control_text(control, s)}",
            "refuted": outside,
            "inconclusive": open_,
        }[label]
        return label, tags, f"{changes}; {text}"
    return label, tags, _predicted(hypothesis, label, tags, mean, interval, adjusted, too_few)


def _predicted(
    hypothesis: Hypothesis,
    label: Label,
    tags: tuple[Tag, ...],
    mean: float,
    interval: Interval,
    adjusted: str,
    too_few: str,
) -> str:
    """Why a predicted difference is supported, refuted, or neither."""
    s = f"{hypothesis.smallest_effect:g}"
    effect, (low, high) = signed(hypothesis.direction, mean, interval)
    wide = f"{_percent(1 - hypothesis.alpha)} interval"
    says = _change(hypothesis.direction, effect, (low, high), wide)
    # What was predicted, where the mean goes the other way and "less than" would mislead.
    against = effect < 0
    predicted = {"rises": "a rise", "falls": "a fall"}.get(hypothesis.direction, "a difference")
    if label == "supported":
        found = "all of it" if "strong" in tags else "above 0, mean"
        return f"{says}: {found} at least {s}; {adjusted}"
    excluded = label == "refuted" or (too_few and high < hypothesis.smallest_effect)
    if excluded and high < 0:
        return f"{says}, the opposite of the prediction{too_few and ', '}{too_few}"
    if excluded:
        found = f"less than {s} throughout{too_few and ', '}{too_few}"
        return f"{says}: {predicted} would be {found}" if against else f"{says}: {found}"
    if low <= 0:
        claimed = f"{predicted} of {s}" if against else s
        return f"{says}: excludes neither 0 nor {claimed}"
    if effect < hypothesis.smallest_effect:
        return f"{says}: above 0, mean less than {s}, which is not excluded"
    return f"{says}: mean at least {s}, but {adjusted}"


def _not_zero(tags: tuple[Tag, ...], adjusted: str) -> str:
    if "opposite" in tags:
        return f", though against the prediction ({adjusted})"
    return f", though not 0 ({adjusted})" if tags else ""


def _control_text(control: Control, smallest_effect: float) -> str:
    """What the control says of an effect that is small, in words that follow it."""
    if control.mean is None:
        without = {
            "undeclared": "no control was declared",
            "missing": "its control has not finished with a number at every seed",
        }.get(control.found)
        unknown = f"that this end point would tell a difference of {smallest_effect:g}"
        return f", but {without}: nothing shows {unknown}" if without else ""
    ends = "" if control.interval is None else f" {_ends_text(control.interval)}"
    if control.found == "differs":
        return f"; its control differs by {control.mean:.3g}{ends}"
    return f", but its control does not differ enough either: by {control.mean:.3g}{ends}"


def _change(direction: str, effect: float, interval: Interval, level: str) -> str:
    """The change in the direction in which the mean went, which may not be the predicted one."""
    low, high = interval
    if effect < 0:
        direction, effect, low, high = OPPOSITE[direction], -effect, -high, -low
    return f"{direction} by {effect + 0.0:.3g}, {level} {_ends_text((low, high))}"


def _ends_text(interval: Interval) -> str:
    return f"[{interval[0]:.3g}, {interval[1]:.3g}]"


def _percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def count_of(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def seed_list(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
