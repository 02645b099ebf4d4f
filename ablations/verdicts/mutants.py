"""A study's own data, changed in known ways: its verdicts must follow (see proofs).

Every hypothesis is changed at once, each on a copy of its metrics. So no change bears on another
hypothesis, on a gate, or on what other arms show.
"""

import types
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from ablations.spec import Hypothesis
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import Verdict

Mutant = Literal[
    "copied", "relabelled", "null", "effect", "opposite", "certain", "unreachable", "alpha",
    "edited", "dropped", "look added", "looks dropped",
]  # fmt: skip

LEAST_ALPHA = 1e-6
"""The least that a hypothesis may have, which is below any p of sign flips."""

EXPLAINED: Mapping[Mutant, str] = types.MappingProxyType(
    {
        "copied": "nothing changed: the same label and numbers",
        "relabelled": "the two sides exchanged at every seed: mean and intervals are mirrored, p "
        "stays, and a rise or fall is no longer supported",
        "null": "the mean taken off the differences: no difference is supported; that nothing "
        "changes is, where their spread allows it",
        "effect": "differences of their own spread around twice the smallest effect, as "
        "predicted: supported where spread and seeds allow it, and never refuted; that nothing "
        "changes is not supported",
        "opposite": "the same against the prediction: not supported, and refuted where their "
        "spread allows it",
        "certain": "twice the smallest effect at every seed: supported where so many signs can "
        "reach alpha; that nothing changes is refuted",
        "unreachable": "the same, or for holds no difference at any seed, with an alpha that so "
        "many signs cannot reach: not supported",
        "alpha": f"alpha changed to {LEAST_ALPHA:g}, which is another statement: intervals are "
        "wider, and nothing is supported whose p is above it",
        "edited": "one value moved by the smallest effect: the mean moves by its share of that",
        "dropped": "the runs of the first seed taken away: failed",
    }
)
"""What each mutant is, and what is asked of the verdict on it."""

PLANTS: tuple[Mutant, ...] = ("null", "effect", "opposite", "certain", "unreachable", "edited")
"""Those that move values."""

Runs = Mapping[tuple[str, int], Run]


def with_own_metrics(
    hypotheses: Mapping[str, Hypothesis], runs: Runs
) -> tuple[dict[str, Hypothesis], dict[tuple[str, int], Run]]:
    """The same study, in which each hypothesis has copies of its metrics that no other has."""
    own: dict[str, Hypothesis] = {}
    copies: dict[str, list[str]] = defaultdict(list)
    for name, one in hypotheses.items():
        metrics = {
            field: f"{metric}, {field} of {name}"
            for field, metric in (("metric", one.metric), ("metric_against", one.metric_against))
            if metric
        }
        own[name] = one.model_copy(update=metrics)
        for field, copy in metrics.items():
            copies[getattr(one, field)].append(copy)

    def copied(values: Mapping[str, float]) -> dict[str, float]:
        return {
            copy: values[metric] for metric in copies if metric in values for copy in copies[metric]
        }

    return own, {
        place: replace(
            run, start={**run.start, **copied(run.start)}, end={**run.end, **copied(run.end)}
        )
        for place, run in runs.items()
    }


def planted(mutant: Mutant, hypothesis: Hypothesis, differences: Sequence[float]) -> list[float]:
    """The differences that a mutant has in place of these."""
    s = hypothesis.smallest_effect
    mean = sum(differences) / len(differences)
    effect = -2 * s if hypothesis.direction == "falls" else 2 * s
    holds = hypothesis.direction == "holds"
    match mutant:
        case "null" | "effect" | "opposite":
            around = {"null": 0.0, "effect": effect, "opposite": -effect}[mutant]
            return [one - mean + around for one in differences]
        case "certain" | "unreachable":
            return [0.0 if mutant == "unreachable" and holds else effect] * len(differences)
        case "edited":
            return [differences[0] + s, *differences[1:]]
        case _:
            return list(differences)


def mutated(
    mutant: Mutant,
    hypotheses: Mapping[str, Hypothesis],
    runs: Runs,
    seeds: Sequence[int],
    differences: Mapping[str, Sequence[float]],
) -> tuple[dict[str, Hypothesis], dict[tuple[str, int], Run]]:
    """The study as :func:`with_own_metrics` has it, changed as the mutant says.

    Args:
        mutant: which.
        hypotheses: with metrics of their own.
        runs: by (arm, seed).
        seeds: the planned seeds; the first is the one that is dropped.
        differences: of the hypotheses whose values may be moved, one for each of the first seeds.
    """
    changed = {name: _restated(mutant, one) for name, one in hypotheses.items()}
    if mutant == "dropped":
        arms = {arm for one in hypotheses.values() for arm in one.weights}
        gone = {(arm, seed) for arm in arms for seed in seeds[:1]}
        left = {place: run for place, run in runs.items() if place not in gone}
        return changed, left
    if mutant not in PLANTS:
        return changed, dict(runs)
    moves: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for name, given in differences.items():
        one = hypotheses[name]
        # The side that moves is the arm's, or where there is none what it is compared with.
        first = {arm: w for arm, w in one.weights.items() if w > 0} or one.weights
        total = sum(first.values())
        for seed, old, new in zip(seeds, given, planted(mutant, one, given), strict=False):
            for arm in first:
                moves[arm, seed][one.metric_of(arm)] = (new - old) / total
    return changed, {
        place: _moved(run, moves[place]) if place in moves else run for place, run in runs.items()
    }


def _restated(mutant: Mutant, hypothesis: Hypothesis) -> Hypothesis:
    """The hypothesis as the mutant states it."""
    update: dict[str, Any] = {}
    if mutant in ("alpha", "unreachable"):
        update = {"alpha": LEAST_ALPHA}
    if mutant == "relabelled" and has_sides(hypothesis):
        update = {"contrast": {arm: -weight for arm, weight in hypothesis.weights.items()}}
        if hypothesis.metric_against:
            update |= {
                "metric": hypothesis.metric_against,
                "metric_against": hypothesis.metric,
            }
    return hypothesis.model_copy(update=update)


def has_sides(hypothesis: Hypothesis) -> bool:
    """Whether its sides can be exchanged; how runs end, of one arm alone, has only one."""
    return not hypothesis.endpoint or len(hypothesis.weights) > 1


def _moved(run: Run, moves: Mapping[str, float]) -> Run:
    """The run with values of the last step moved; it is no longer the trial that it was."""
    end = {**run.end, **{metric: run.end[metric] + by for metric, by in moves.items()}}
    return replace(run, end=end, key="")


def movable(verdicts: Mapping[str, Verdict], hypotheses: Mapping[str, Hypothesis]) -> list[str]:
    """Names of the hypotheses that have a value at every seed, which can be moved by an amount."""
    return [
        name
        for name, verdict in verdicts.items()
        if verdict.label != "failed" and hypotheses[name].metric and verdict.n == len(verdict.seeds)
    ]
