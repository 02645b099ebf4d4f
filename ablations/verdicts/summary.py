"""Every number behind a verdict: paired statistics of the differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from scipy.special import gammaln
from statsmodels.stats.weightstats import DescrStatsW

from ablations.spec import Hypothesis
from ablations.statistics.sign_flip import inversion_interval, signflip_p

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Paired statistics of n differences, arm minus against, whatever direction was predicted.

    None stands for a number that does not exist: most need n >= 2, and the standardised effects
    need differences that vary. Levels follow the alpha of the hypothesis.
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
    """Two-sided p-value of no difference, in (0, 1]: sign-flip or t, as the hypothesis says."""
    p_equivalence: float | None
    """TOST p-value of a mean outside the smallest effect of interest (Schuirmann 1987)."""
    dz: float | None
    """Mean over standard deviation of the differences."""
    hedges_g: float | None
    """dz without its small-sample bias (Hedges 1981); needs n >= 3."""
    probability_of_superiority: float | None
    """Share of seeds at which the arm is above, ties counting half, in [0, 1]."""
    probability_of_superiority_interval: Interval | None
    """Clopper-Pearson at level 1 - alpha, ties against the arm below and for it above."""


def summarise(hypothesis: Hypothesis, differences: Sequence[float]) -> Summary:
    """All statistics of the differences, shape [n]; equal ones (to 12 digits) need no test."""
    n = len(differences)
    d = np.array(differences, dtype=np.float64)
    alpha, margin = hypothesis.alpha, hypothesis.smallest_effect
    mean = standard_deviation = p = p_equivalence = dz = hedges_g = None
    interval = interval_equivalence = interval_inversion = None
    superiority = superiority_interval = None
    if n >= 1:
        mean = float(d.mean())
        wins, ties = int((d > 0).sum()), int((d == 0).sum())
        superiority = (wins + ties / 2) / n
        low, high = (
            scipy.stats.binomtest(count, n).proportion_ci(1 - alpha, method="exact")
            for count in (wins, wins + ties)
        )
        superiority_interval = (float(low.low), float(high.high))
    if n >= 2:
        assert mean is not None
        standard_deviation = float(d.std(ddof=1))
        p = float(signflip_p(d))
        ends = inversion_interval(d, alpha)
        interval_inversion = None if ends is None else (float(ends[0]), float(ends[1]))
        if standard_deviation <= 1e-12 * float(np.abs(d).max()):
            standard_deviation = 0.0
            interval = interval_equivalence = (mean, mean)
            p_equivalence = 0.0 if -margin < mean < margin else 1.0
        else:
            result = scipy.stats.ttest_1samp(d, 0.0)
            p = float(result.pvalue) if hypothesis.test == "t" else p
            interval = _ends(result.confidence_interval(1 - alpha))
            interval_equivalence = _ends(result.confidence_interval(1 - 2 * alpha))
            p_equivalence = float(DescrStatsW(d).ttost_mean(-margin, margin)[0])
            dz = mean / standard_deviation
            if n >= 3:
                half = (n - 1) / 2
                hedges_g = dz * math.exp(gammaln(half) - gammaln(half - 0.5)) / math.sqrt(half)
    return Summary(
        n=n,
        mean=mean,
        standard_deviation=standard_deviation,
        interval=interval,
        interval_equivalence=interval_equivalence,
        interval_inversion=interval_inversion,
        p=p,
        p_equivalence=p_equivalence,
        dz=dz,
        hedges_g=hedges_g,
        probability_of_superiority=superiority,
        probability_of_superiority_interval=superiority_interval,
    )


def _ends(interval: Any) -> Interval:
    return float(interval.low), float(interval.high)
