"""What pairing by seed is worth: how many seeds it saves, or costs."""

import math
from dataclasses import dataclass

import numpy as np

from ablations.statistics.flips import Floats


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Two arms at the same n seeds. None stands for a number that does not exist."""

    correlation: float | None
    """Of the two arms over seeds, in [-1, 1]; None if one of them does not vary."""
    variance_ratio: float | None
    """Variance of the differences over the sum of the arms' variances, in [0, 2]. Below 1 pairing
    helps; None if neither arm varies."""
    unpaired_seeds: float | None
    """Seeds of each arm that would say as much if no seed were shared; n at a ratio of a little
    below 1. None if no number would, since the differences do not vary."""


def paired(arm: Floats, against: Floats) -> Pairing:
    """How arm and against, each [n], n >= 2, one value a seed, hang together.

    What n pairs say is n over the variance of their differences, times the part that is left when
    the variance is estimated with few degrees of freedom, (f + 1) / (f + 3) (Fisher 1935). Pairs
    have f = n - 1; as many unpaired seeds have 2 n - 2, so pairs that are unrelated cost seeds.

    Raises:
        ValueError: if the arms have different shapes or fewer than two values.
    """
    if arm.shape != against.shape or arm.ndim != 1 or len(arm) < 2:
        raise ValueError(
            f"pairs need two values or more of each arm, as many of one as of the other, "
            f"got {arm.shape} and {against.shape}"
        )
    n, total = len(arm), float(arm.var(ddof=1) + against.var(ddof=1))
    product = float(arm.std(ddof=1) * against.std(ddof=1))
    covariance = float(np.cov(arm, against)[0, 1])
    ratio = max(0.0, 1 - 2 * covariance / total) if total > 0 else None
    return Pairing(
        correlation=min(1.0, max(-1.0, covariance / product)) if product > 0 else None,
        variance_ratio=ratio,
        unpaired_seeds=_unpaired(n, ratio) if ratio else None,
    )


def _unpaired(n: int, ratio: float) -> float:
    """N with N (2 N - 1) / (2 N + 1) = n / ratio * n / (n + 2), the larger root."""
    information = n * n / (n + 2) / ratio
    half = 1 + 2 * information
    return (half + math.sqrt(half**2 + 8 * information)) / 4
