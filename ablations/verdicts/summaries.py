"""The statistics that suit the end point of a hypothesis."""

from collections.abc import Sequence

from ablations.contrast import sides_of
from ablations.spec import Hypothesis
from ablations.statistics.outcomes import summarise_outcomes
from ablations.statistics.summary import Summary, summarise
from ablations.verdicts.evidence import Pair


def summary_of(
    hypothesis: Hypothesis,
    pairs: Sequence[Pair],
    *,
    same_trial: bool = False,
    inverted: bool = True,
    of_control: bool = False,
) -> Summary:
    """Statistics of the pairs that have a difference; exact ones of shares for an endpoint.

    The pairs are those of the hypothesis, or with `of_control` of its control, which may compare
    two arms where the hypothesis has one. `same_trial` and `inverted` are as `summarise` takes
    them.
    """
    there = [pair for pair in pairs if pair.difference is not None]
    if not hypothesis.endpoint:
        return summarise(
            [pair.difference for pair in there if pair.difference is not None],
            alpha=hypothesis.alpha,
            margin=hypothesis.smallest_effect,
            test=hypothesis.test,
            same_trial=same_trial,
            inverted=inverted,
        )
    _, second = hypothesis.control_sides if of_control else sides_of(hypothesis.weights)
    return summarise_outcomes(
        [bool(pair.arm) for pair in there],
        [bool(pair.against) for pair in there] if second else None,
        alpha=hypothesis.alpha,
        margin=hypothesis.smallest_effect,
        paired=hypothesis.paired,
        same_trial=same_trial,
    )
