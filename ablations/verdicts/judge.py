"""What the runs say about each hypothesis: paired statistics, one label, and the reason for it.

The unit is the training seed. Two arms are compared by their differences at equal seeds, n of
them, arm minus the arm it is compared with. Intervals are Student t; p-values are exact sign-flip
(or t, if the hypothesis says so), Holm-adjusted within a family; the label follows
:func:`ablations.verdicts.rule.decide`. No bootstrap: over ten seeds or fewer its intervals cover
too little. docs/statistics.md says all of it for users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablations.spec import Gate, Hypothesis
from ablations.statistics.multiplicity import holm
from ablations.statistics.summary import Summary, summarise
from ablations.verdicts.evidence import Pair, Run, pairs_of, problems_of
from ablations.verdicts.gates import measure_gates, missed_gates
from ablations.verdicts.machines import machines_text
from ablations.verdicts.planning import family_sizes, seeds_text, seeds_to_plan
from ablations.verdicts.reasons import count_of, decided
from ablations.verdicts.rule import FEWEST_SEEDS, Label, Tag


@dataclass(frozen=True, kw_only=True)
class Verdict(Summary):
    """The label of one hypothesis, what decided it, and every number behind it."""

    label: Label
    tags: tuple[Tag, ...]
    reason: str
    """One line: what decided the label."""
    seeds: tuple[int, ...]
    """Seeds that were planned."""
    pairs: tuple[Pair, ...]
    """One for each planned seed, in that order, complete or not."""
    p_adjusted: float | None
    """p after Holm over the family; None for `holds`, which is not in one, and for failed."""
    seeds_needed: int | None
    """Only when inconclusive: see `seeds_to_plan`. None also where that is beyond it."""

    def to_json(self) -> dict[str, Any]:
        """Fields by name as JSON types; a pair is an object; None where a number is not there."""
        plain = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return {**plain, "pairs": [pair._asdict() for pair in self.pairs]}


def judge(
    hypotheses: Mapping[str, Hypothesis],
    gates: Mapping[str, Gate],
    runs: Mapping[tuple[str, int], Run],
    seeds: Sequence[int],
) -> dict[str, Verdict]:
    """A verdict for each hypothesis, by name, in the order given.

    `failed` comes first: a run of any of its arms at a planned seed that is not finished, a metric
    that is absent or not finite in a finished run, or a gate that any of its arms misses. Its
    statistics are those of the pairs that have numbers, for display only. Then fewer than
    FEWEST_SEEDS seeds are `inconclusive`, and the rest is :func:`decide`. A failed hypothesis keeps
    its place in its family, as p = 1: the others must not gain from its failure.

    Args:
        hypotheses: what was claimed, by name.
        gates: what arms must show to count, by name; each arm is checked alone.
        runs: what happened, by (arm, seed); one that is not there is missing.
        seeds: the planned seeds, all different.

    Raises:
        ValueError: if a seed is planned twice.
    """
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must differ, one pair each, got {list(seeds)}: remove repeats")
    missed = missed_gates(gates, measure_gates(gates, runs, seeds), runs)
    pairs = {name: pairs_of(h, runs, seeds) for name, h in hypotheses.items()}
    summaries = {
        name: summarise(
            [pair.difference for pair in pairs[name] if pair.difference is not None],
            alpha=h.alpha,
            margin=h.smallest_effect,
            test=h.test,
        )
        for name, h in hypotheses.items()
    }
    problems = {
        name: [
            *problems_of(h, runs, pairs[name]),
            *(text for arm in h.weights for text in missed.get(arm, [])),
        ]
        for name, h in hypotheses.items()
    }
    counted = {
        name: 1.0 if problems[name] or summary.p is None else summary.p
        for name, summary in summaries.items()
        if hypotheses[name].direction != "holds"
    }
    adjusted = holm({name: (hypotheses[name].family, p) for name, p in counted.items()})
    sizes = family_sizes(hypotheses)

    verdicts = {}
    for name, hypothesis in hypotheses.items():
        summary = summaries[name]
        label: Label
        tags: tuple[Tag, ...] = ()
        p_adjusted = adjusted.get(name) if summary.p is not None and not problems[name] else None
        seeds_needed = None
        if problems[name]:
            label, reason = "failed", "; ".join(problems[name])
        elif summary.n < FEWEST_SEEDS:
            label, seeds_needed = "inconclusive", FEWEST_SEEDS
            reason = (
                f"{count_of(summary.n, 'seed')}; {FEWEST_SEEDS} is the fewest at which a two-sided "
                "exact test can reach 0.05"
            )
        else:
            family_size = sizes.get(hypothesis.family, 1)
            label, tags, reason = decided(hypothesis, summary, p_adjusted, family_size)
            if label == "inconclusive":
                seeds_needed = seeds_to_plan(hypothesis, summary, family_size)
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
        )
    return verdicts
