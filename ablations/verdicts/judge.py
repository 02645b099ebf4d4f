"""What the runs say about each hypothesis: paired statistics, one label, and the reason for it.

The unit is the training seed. Two arms are compared by their differences at equal seeds, n of
them, arm minus the arm it is compared with. Intervals are Student t; p-values are exact sign-flip
(or t, if the hypothesis says so), adjusted within a family; the label follows
:func:`ablations.verdicts.rule.decide`. No bootstrap: over ten seeds or fewer its intervals cover
too little. docs/statistics.md says all of it for users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ablations.spec import Gate, Hypothesis, Multiplicity
from ablations.statistics.pairing import Pairing, paired
from ablations.statistics.summary import Summary
from ablations.verdicts.evidence import Look, Pair, Run, pairs_of, problems_of, same_trial
from ablations.verdicts.families import Adjusted, adjusted
from ablations.verdicts.gates import NO_REFERENCES, measure_gates, missed_gates
from ablations.verdicts.machines import machines_text
from ablations.verdicts.planning import seeds_text, seeds_to_plan
from ablations.verdicts.reasons import count_of, decided
from ablations.verdicts.rule import FEWEST_SEEDS, Control, Label, Largest, Tag, is_small
from ablations.verdicts.sensitivity import control_of, largest_effect
from ablations.verdicts.summaries import summary_of

_DEFAULT = Multiplicity()


@dataclass(frozen=True, kw_only=True)
class Verdict(Summary):
    """The label of one hypothesis, what decided it, and every number behind it."""

    label: Label
    tags: tuple[Tag, ...]
    reason: str
    """One line: what decided the label."""
    seeds: tuple[int, ...]
    """Seeds that were planned; of a sequential design those up to the look that it is of."""
    pairs: tuple[Pair, ...]
    """One for each planned seed, in that order, complete or not."""
    p_adjusted: float | None
    """p adjusted within the family, that of no difference for `holds` too; None for failed."""
    seeds_needed: int | None
    """Only when inconclusive for want of seeds: see `seeds_to_plan`, which may give None. None for
    how runs end, above FEWEST_SEEDS."""
    largest_effect: Largest | None
    """The largest effect of any arm on the end point; None for failed and without seeds."""
    sensitivity: float | None
    """That over the smallest effect: below 1 the end point could not have shown it."""
    control: Control | None
    """What the declared control shows on the same end point; None for failed."""
    pairing: Pairing | None
    """What it is worth that sides share seeds; None if one is missing or does not vary."""
    looks: tuple[Look, ...] = ()
    """What was seen at each look so far of a sequential design."""
    looks_planned: int = 1
    seeds_planned: int = 0
    """Of all looks, and 0 without a sequential design."""

    def to_json(self) -> dict[str, Any]:
        """Fields by name as JSON types; a pair is an object; None where a number is not there."""
        plain = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        largest = self.largest_effect
        return {
            **plain,
            "pairs": [pair._asdict() for pair in self.pairs],
            "largest_effect": None if largest is None else largest._asdict(),
            "control": None if self.control is None else self.control.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a hypothesis is judged by at a look of a sequential design."""

    summary: Summary
    """whose p-values and intervals hold over all looks"""
    adjusted: Adjusted
    least_p: float
    """that so many signs can show at this look"""


def judge(
    hypotheses: Mapping[str, Hypothesis],
    gates: Mapping[str, Gate],
    runs: Mapping[tuple[str, int], Run],
    seeds: Sequence[int],
    *,
    multiplicity: Multiplicity = _DEFAULT,
    references: Mapping[str, float] = NO_REFERENCES,
    advise: bool = True,
    looked: Mapping[str, Looked] | None = None,
) -> dict[str, Verdict]:
    """A verdict for each hypothesis, by name, in the order given.

    `failed` comes first: a run of any of its arms at a planned seed that is not finished, a metric
    that is absent or not finite in a finished run, or a gate that any of its arms misses. Its
    statistics are those of the pairs that have numbers, for display only. Then fewer than
    FEWEST_SEEDS seeds are `inconclusive`, and the rest is :func:`decide`, given what the arms in
    `runs` do to the end point.

    Args:
        hypotheses: what was claimed, by name.
        gates: what arms must show to count, by name; each arm is checked alone.
        runs: what happened, by (arm, seed); one that is not there is missing.
        seeds: the planned seeds, all different.
        multiplicity: how p-values are adjusted within a family.
        references: accuracies of the data alone that gates may look at, by name.
        advise: whether an open verdict says how many seeds it needs, which takes longest.
        looked: of each hypothesis, what stands for its own statistics at a look.

    Raises:
        ValueError: if a seed is planned twice.
    """
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must differ, one pair each, got {list(seeds)}: remove repeats")
    missed = missed_gates(gates, measure_gates(gates, runs, seeds, references), runs)
    pairs = {name: pairs_of(h, runs, seeds) for name, h in hypotheses.items()}
    differences = {
        name: [pair.difference for pair in of if pair.difference is not None]
        for name, of in pairs.items()
    }
    same = {name: same_trial(h, runs, seeds) for name, h in hypotheses.items()}
    summaries = {
        name: looked[name].summary if looked else summary_of(h, pairs[name], same_trial=same[name])
        for name, h in hypotheses.items()
    }
    problems = {
        name: [
            *problems_of(h, runs, pairs[name]),
            # How a run ended needs no arm to have learned.
            *(text for arm in h.weights for text in missed.get(arm, []) if h.metric),
        ]
        for name, h in hypotheses.items()
    }
    adjustments = (
        {name: looked[name].adjusted for name in hypotheses}
        if looked
        else adjusted(
            hypotheses,
            differences,
            {name: None if problems[name] else summary.p for name, summary in summaries.items()},
            multiplicity,
        )
    )
    verdicts = {}
    for name, hypothesis in hypotheses.items():
        summary, adjustment = summaries[name], adjustments[name]
        label: Label
        tags: tuple[Tag, ...] = ()
        seeds_needed = largest = control = None
        p_adjusted = None if problems[name] or summary.p is None else adjustment.p
        if summary.mean is not None and not problems[name]:
            control = control_of(hypothesis, runs, seeds, missed)
            largest = largest_effect(
                hypothesis, runs, seeds, own=summary.mean, control=control.mean, without=missed
            )
        if problems[name]:
            label, reason = "failed", "; ".join(problems[name])
        elif summary.n < FEWEST_SEEDS:
            label, seeds_needed = "inconclusive", FEWEST_SEEDS
            reason = (
                f"{count_of(summary.n, 'seed')}; {FEWEST_SEEDS} is the fewest at which a two-sided "
                "exact test can reach 0.05"
            )
        else:
            assert p_adjusted is not None
            assert control is not None
            # Intervals of how runs end are exact, and those of one trial need no proof.
            exact = hypothesis.endpoint or same[name]
            least = looked[name].least_p if looked else 2 / 2**summary.n
            label, tags, reason = decided(
                hypothesis,
                summary,
                p_adjusted,
                adjustment.text,
                largest,
                control,
                0.0 if exact else least,
            )
            # The deviation of how runs end is 0 where all agree, and says nothing of seeds.
            counts = advise and hypothesis.metric and label == "inconclusive"
            if counts and not _is_small(hypothesis, summary):
                seeds_needed = seeds_to_plan(
                    hypothesis, summary, adjustment.size, by_holm=multiplicity.by == "holm"
                )
                reason += f"; {seeds_text(hypothesis, summary.n, seeds_needed)}"
        if differ := machines_text(hypothesis, runs, seeds):
            reason += f"; {differ}"
        verdicts[name] = Verdict(
            **vars(summary),
            label=label,
            tags=tags,
            reason=reason,
            seeds=tuple(seeds),
            pairs=pairs[name],
            p_adjusted=p_adjusted,
            seeds_needed=seeds_needed,
            largest_effect=largest,
            sensitivity=largest.effect / hypothesis.smallest_effect if largest else None,
            control=control,
            pairing=_pairing(pairs[name]),
        )
    return verdicts


def _pairing(pairs: Sequence[Pair]) -> Pairing | None:
    if any(pair.difference is None for pair in pairs) or len(pairs) < 2:
        return None
    sides = np.array([(pair.arm, pair.against) for pair in pairs], dtype=np.float64)
    found = paired(*sides.T)
    return found if found.correlation is not None else None


def decisive_p(
    hypotheses: Mapping[str, Hypothesis], verdicts: Mapping[str, Verdict]
) -> dict[str, float | None]:
    """The p that being supported rests on: of equivalence for `holds`, else the adjusted one.

    None for a hypothesis that failed.
    """
    return {
        name: None
        if verdict.label == "failed"
        else verdict.p_equivalence
        if hypotheses[name].direction == "holds"
        else verdict.p_adjusted
        for name, verdict in verdicts.items()
    }


def _is_small(hypothesis: Hypothesis, summary: Summary) -> bool:
    """Whether its effect is shown to be small, so that it is not seeds that are wanting."""
    interval, p = summary.interval_equivalence, summary.p_equivalence
    assert interval is not None
    assert p is not None
    return is_small(hypothesis.smallest_effect, hypothesis.alpha, interval, p)
