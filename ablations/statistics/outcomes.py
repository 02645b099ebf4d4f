"""Statistics of yes/no end points: whether runs ended in some way, and how often more than others.

Tests and intervals are exact. Between the two arms of a seed the test is McNemar's, which is the
sign-flip test of differences of 1, 0 and -1; between arms without common seeds it is Fisher's. The
interval of a difference of shares is made of those of two shares (Clopper & Pearson 1934), each at
half the error, so it covers at least as often as it says. Where all agree, differences do not vary,
and an interval from their deviation would have no width.
"""

import dataclasses
import math
from collections.abc import Sequence

from scipy.optimize import brentq

from ablations.statistics.effect_sizes import Interval
from ablations.statistics.proportions import clopper_pearson, fisher_p, mcnemar_p
from ablations.statistics.summary import Summary, summarise


def summarise_outcomes(
    first: Sequence[bool],
    second: Sequence[bool] | None,
    *,
    alpha: float,
    margin: float,
    paired: bool = True,
    same_trial: bool = False,
) -> Summary:
    """All statistics of whether it happened at n seeds in one arm, and in another one.

    Args:
        first: of each seed, whether it happened.
        second: the same of the arm compared with; None for the share of the first alone.
        alpha: error rate of tests and intervals, in (0, 0.5).
        margin: what equivalence is tested against, > 0, as a difference of shares.
        paired: whether equal places are one seed.
        same_trial: whether the two runs of each pair are one trial.
    """
    against = [False] * len(first) if second is None else second
    differences = [float(a) - float(b) for a, b in zip(first, against, strict=True)]
    plain = summarise(
        differences, alpha=alpha, margin=margin, test="signflip", same_trial=same_trial
    )
    n = len(first)
    if n < 2 or same_trial:
        return plain
    if second is None or paired:
        counts = differences.count(1.0), differences.count(-1.0)
        p = mcnemar_p(*counts)
    else:
        counts = sum(first), sum(second)
        p = fisher_p(counts[0], n, counts[1], n)

    def interval(error: float) -> Interval:
        if second is None:
            return clopper_pearson(counts[0], n, error)
        more, less = (clopper_pearson(count, n, error / 2) for count in counts)
        return more[0] - less[1], more[1] - less[0]

    def tested(error: float) -> Interval:
        """The same without what the test rejects, so that both never contradict each other."""
        low, high = interval(error)
        sign = math.copysign(1.0, counts[0] - counts[1]) if p <= error else 0.0
        return max(low, 0.0) if sign > 0 else low, min(high, 0.0) if sign < 0 else high

    def excess(error: float) -> float:
        low, high = interval(2 * error)
        return max(high, -low) - margin

    least, most = 1e-9, 0.5 - 1e-9
    if excess(most) >= 0:
        p_equivalence = 1.0
    else:
        p_equivalence = least if excess(least) < 0 else float(brentq(excess, least, most))
    return dataclasses.replace(
        plain,
        interval=tested(alpha),
        interval_equivalence=tested(2 * alpha),
        interval_inversion=None,
        p=p,
        p_equivalence=max(p_equivalence, 0.5**n),
        p_equivalence_signflip=None,
    )
