"""What decided a label, in words."""

from collections.abc import Sequence

from ablations.spec import Hypothesis
from ablations.statistics.effect_sizes import Interval
from ablations.statistics.summary import Summary
from ablations.verdicts.rule import Label, Tag, decide, signed

OPPOSITE = {"rises": "falls", "falls": "rises"}


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
    says = _change(hypothesis.direction, effect, (low, high), wide)
    # What was predicted, where the mean goes the other way and "less than" would mislead.
    against = effect < 0
    predicted = {"rises": "a rise", "falls": "a fall"}.get(hypothesis.direction, "a difference")
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
    if label == "refuted" and high < 0:
        return label, tags, f"{says}, the opposite of the prediction"
    if label == "refuted":
        found = f"less than {s} throughout"
        return (
            label,
            tags,
            f"{says}: {predicted} would be {found}" if against else f"{says}: {found}",
        )
    if low <= 0:
        claimed = f"{predicted} of {s}" if against else s
        return label, tags, f"{says}: excludes neither 0 nor {claimed}"
    if effect < hypothesis.smallest_effect:
        return label, tags, f"{says}: above 0, mean less than {s}, which is not excluded"
    return label, tags, f"{says}: mean at least {s}, but {adjusted}"


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
