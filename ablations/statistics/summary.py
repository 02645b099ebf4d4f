"""Every number behind a verdict: paired statistics of the differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from ablations.statistics.effect_sizes import Interval, hedges_g, superiority
from ablations.statistics.equivalence import are_equal, tost_p, tost_signflip_p
from ablations.statistics.sign_flip import inversion_interval, signflip_p


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Paired statistics of n differences, arm minus against, whatever direction was predicted.

    None stands for a number that does not exist: most need n >= 2, and the standardised effects
    need differences that vary.
    """

    n: int
    """Differences that are finite numbers."""
    mean: float | None
    """Mean difference, in the metric's units."""
    standard_deviation: float | None
    """Standard deviation of the differences (n - 1), in the metric's units."""
    interval: Interval | None
    """t interval of the mean at level 1 - alpha; the mean itself if the differences are equal."""
    interval_equivalence: Interval | None
    """The same at level 1 - 2 alpha: inside the margins exactly when TOST passes at alpha."""
    interval_inversion: Interval | None
    """Shifts the sign-flip test does not reject at alpha; None where it can reject none."""
    p: float | None
    """Two-sided p-value of no difference, in (0, 1]: sign-flip or t, as asked."""
    p_equivalence: float | None
    """TOST p-value of a mean outside ±margin (Schuirmann 1987), at least 2**-n."""
    p_equivalence_signflip: float | None
    """The same by exact sign flips of the differences from each margin."""
    dz: float | None
    """Mean over standard deviation of the differences."""
    hedges_g: float | None
    """dz without its small-sample bias (Hedges 1981); needs n >= 3."""
    probability_of_superiority: float | None
    """Share of seeds at which the arm is above, ties counting half, in [0, 1]."""
    probability_of_superiority_interval: Interval | None
    """Clopper-Pearson at level 1 - alpha, ties against the arm below and for it above."""
    skewness: float | None
    """Third standardised moment of the differences, biased; sign-flip and t tests assume it is 0.

    At most (n - 2) / sqrt(n - 1) in size; needs n >= 3.
    """


def summarise(
    differences: Sequence[float],
    *,
    alpha: float,
    margin: float,
    test: Literal["signflip", "t"],
    same_trial: bool = False,
    inverted: bool = True,
) -> Summary:
    """All statistics of the differences, shape [n]; equal ones (to 12 digits) need no test.

    Args:
        differences: finite numbers.
        alpha: error rate of tests and intervals, in (0, 0.5).
        margin: what equivalence is tested against, > 0, in the metric's units.
        test: the test behind `p`.
        same_trial: whether the two runs of each pair are one trial, which needs no proof that they
            are equivalent.
        inverted: whether to invert sign flips for `interval_inversion` and for
            `p_equivalence_signflip`, which no label depends on and which take longest.
    """
    n = len(differences)
    d = np.array(differences, dtype=np.float64)
    mean = standard_deviation = p = p_equivalence = p_equivalence_signflip = dz = g = None
    interval = interval_equivalence = interval_inversion = None
    share = share_interval = skewness = None
    if n >= 1:
        mean = float(d.mean())
        share, share_interval = superiority(d, alpha)
    if n >= 2:
        assert mean is not None
        standard_deviation = float(d.std(ddof=1))
        p = float(signflip_p(d))
        p_equivalence = float(tost_p(d, margin, same_trial=same_trial))
        if inverted:
            ends = inversion_interval(d, alpha)
            interval_inversion = None if ends is None else (float(ends[0]), float(ends[1]))
            p_equivalence_signflip = float(tost_signflip_p(d, margin, same_trial=same_trial))
        if are_equal(d):
            standard_deviation = 0.0
            interval = interval_equivalence = (mean, mean)
        else:
            # As scipy.stats has them, without what it checks each time: simulations need many.
            error = standard_deviation / math.sqrt(n)
            p = 2 * float(stdtr(n - 1, -abs(mean) / error)) if test == "t" else p
            interval = _ends(mean, error, n, alpha)
            interval_equivalence = _ends(mean, error, n, 2 * alpha)
            dz = mean / standard_deviation
            if n >= 3:
                g = hedges_g(dz, n)
                centred = d - mean
                skewness = float((centred**3).mean() / (centred**2).mean() ** 1.5)
    return Summary(
        n=n,
        mean=mean,
        standard_deviation=standard_deviation,
        interval=interval,
        interval_equivalence=interval_equivalence,
        interval_inversion=interval_inversion,
        p=p,
        p_equivalence=p_equivalence,
        p_equivalence_signflip=p_equivalence_signflip,
        dz=dz,
        hedges_g=g,
        probability_of_superiority=share,
        probability_of_superiority_interval=share_interval,
        skewness=skewness,
    )


def t_interval_of(summary: Summary, alpha: float) -> Interval:
    """Student's t interval of the mean of n >= 2 differences, at level 1 - alpha."""
    assert summary.mean is not None
    assert summary.standard_deviation is not None
    return _ends(summary.mean, summary.standard_deviation / math.sqrt(summary.n), summary.n, alpha)


def _ends(mean: float, error: float, n: int, alpha: float) -> Interval:
    reach = -float(stdtrit(n - 1, alpha / 2)) * error
    return mean - reach, mean + reach
