"""The exact sign-flip test of paired differences, and its interval."""

import functools
import math

import numpy as np

from ablations.statistics.flips import EXACT_SEEDS, SIGN_FLIPS, Floats
from ablations.statistics.max_t import step_down_p


def signflip_p(differences: Floats) -> Floats:
    """Two-sided p-value of the sign-flip test that differences are symmetric around 0.

    The statistic is the mean. Flips leave the sum of squares as it is, so the studentised mean
    orders them the same way and gives the same p-value. Exact up to EXACT_SEEDS differences, then
    SIGN_FLIPS random flips with the +1 correction. Means that agree to 12 digits are ties.

    Args:
        differences: shape [..., n], n >= 2; each row is tested.

    Returns:
        Shape [...], in [2 / 2**n, 1]; 1 where all differences are 0.
    """
    return step_down_p(differences[..., None, :])[..., 0]


def inversion_interval(differences: Floats, alpha: float) -> tuple[Floats, Floats] | None:
    """Shifts that the two-sided sign-flip test at `alpha` does not reject, ends included.

    Flipping a set of signs keeps the mean as large exactly if the mean over that set is not above
    the shift. So the ends are the k-th smallest and k-th largest mean over the 2**n - 1 non-empty
    subsets, k = floor(alpha * 2**n / 2), and the coverage under symmetry is 1 - 2k / 2**n (Hartigan
    1969, typical values). SIGN_FLIPS random subsets beyond EXACT_SEEDS.

    Args:
        differences: shape [..., n], n >= 1.
        alpha: error rate, in (0, 1).

    Returns:
        Lower and upper ends, each of shape [...]; None where no shift can be rejected (k = 0, so
        below 6 differences at 0.05).
    """
    weights = _subsets(differences.shape[-1])
    k = math.floor(alpha * (len(weights) + 1) / 2)
    if k == 0:
        return None
    means = differences @ weights.T
    ends = np.partition(means, (k - 1, len(weights) - k))
    return ends[..., k - 1], ends[..., len(weights) - k]


@functools.lru_cache(maxsize=8)
def _subsets(n: int) -> Floats:
    """Non-empty subsets of n differences, [subsets, n]: what weighs each in the mean of one.

    All hypotheses of a study share them, at each look.
    """
    if n <= EXACT_SEEDS:
        codes = np.arange(1, 2**n)
        members = (codes[:, None] >> np.arange(n)) & 1
    else:
        members = np.random.default_rng(0).integers(0, 2, size=(SIGN_FLIPS, n))
        members = members[members.any(axis=1)]
    weights: Floats = members / members.sum(axis=1, keepdims=True)
    return weights
