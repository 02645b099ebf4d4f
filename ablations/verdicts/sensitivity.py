"""Whether an end point could have shown a difference: what the arms of a study do to it."""

import math
from collections.abc import Collection, Mapping, Sequence

from ablations.spec import BASELINE, Hypothesis
from ablations.verdicts.evidence import Run, control_pairs, counted, pairs_of, run_of
from ablations.verdicts.rule import FEWEST_SEEDS, Control, Largest
from ablations.verdicts.summaries import summary_of


def control_of(
    hypothesis: Hypothesis,
    runs: Mapping[tuple[str, int], Run],
    seeds: Sequence[int],
    without: Collection[str] = (),
) -> Control:
    """What the control shows: it differs if its mean is s or more, p is alpha at most, and its
    interval is to one side of 0.

    It is no member of a family, since it is no claim. The arms `without` have no numbers that
    count.
    """
    if not hypothesis.control:
        return Control(found="undeclared")
    pairs = control_pairs(hypothesis, runs, seeds)
    differences = [pair.difference for pair in pairs if pair.difference is not None]
    wanting = hypothesis.metric and any(arm in without for arm, _ in hypothesis.control_metrics)
    if wanting or len(differences) < max(2, len(seeds)):
        return Control(found="missing")
    s, alpha = hypothesis.smallest_effect, hypothesis.alpha
    summary = summary_of(hypothesis, pairs, inverted=False, of_control=True)
    assert summary.mean is not None
    assert summary.interval is not None
    assert summary.p is not None
    low, high = summary.interval
    differs = abs(summary.mean) >= s and summary.p <= alpha and not low < 0 < high
    return Control(
        found="differs" if differs else "alike", mean=summary.mean, interval=summary.interval
    )


def largest_effect(
    hypothesis: Hypothesis,
    runs: Mapping[tuple[str, int], Run],
    seeds: Sequence[int],
    *,
    own: float,
    control: float | None = None,
    without: Collection[str] = (),
) -> Largest:
    """How far any arm moves the end point, and which does.

    Arms are compared with the baseline, on each metric of the hypothesis; where the baseline does
    not report one, with what the hypothesis compares with. The means of its `own` contrast and of
    its `control` count too. Only arms count whose runs have finished with numbers at every seed,
    and which are not among `without`; those that a sequential design has stopped count at the seeds
    before that, FEWEST_SEEDS or more.
    """
    effects: dict[str, float] = {}
    against = {pair.seed: pair.against for pair in pairs_of(hypothesis, runs, seeds)}
    arms = dict.fromkeys(arm for arm, _ in runs if arm not in without or hypothesis.endpoint)
    metrics = hypothesis.metric, hypothesis.metric_against or hypothesis.metric
    for metric in dict.fromkeys(metrics):
        values = {
            arm: {
                seed: counted(hypothesis, run, metric)
                for seed in seeds
                if (run := run_of(runs, arm, seed)).status != "skipped"
            }
            for arm in arms
        }
        baseline = values.get(BASELINE)
        references = against if not baseline or None in baseline.values() else baseline
        for arm, of in values.items():
            both = [seed for seed in of if seed in references]
            reference = _mean([references[seed] for seed in both])
            mean = None if None in of.values() else _mean([of[seed] for seed in both])
            few = len(both) < min(len(seeds), FEWEST_SEEDS)
            if not few and mean is not None and reference is not None:
                effects[arm] = max(abs(mean - reference), effects.get(arm, 0.0))
    effects |= {"its own contrast": abs(own), "its control": abs(control or 0.0)}
    # An arm is named before what is the same but for rounding.
    name = max(effects, key=lambda one: float(f"{effects[one]:.9g}"))
    return Largest(max(effects.values()), name)


def _mean(values: Sequence[float | None]) -> float | None:
    """Their mean; None if one is not there."""
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if len(numbers) == len(values) > 0 else None
