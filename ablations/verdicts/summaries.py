"""The statistics that suit the end point of a hypothesis."""

from collections.abc import Sequence

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
) -> Summary:
    """Statistics of the pairs that have a difference; exact ones of shares for an endpoint.

    `same_trial` and `inverted` are as `summarise` takes them.
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
    return summarise_outcomes(
        [bool(pair.arm) for pair in there],
        [bool(pair.against) for pair in there] if len(hypothesis.contrast) > 1 else None,
        alpha=hypothesis.alpha,
        margin=hypothesis.smallest_effect,
        paired=hypothesis.paired,
        same_trial=same_trial,
    )
