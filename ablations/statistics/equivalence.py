"""Two one-sided tests of equivalence (TOST, Schuirmann 1987), by t and by exact sign flips.

No p-value is below 2**-n, the least that the signs of n differences can show, whatever their size:
six equal zeros are no proof that arms agree to any margin. Runs that are the same trial are, since
no difference between them is possible: their p is 0.
"""

import numpy as np
import numpy.typing as npt
import scipy.stats

from ablations.statistics.flips import TIE, Floats, in_batches, of_length_one, signs


def tost_p(differences: Floats, margin: float, *, same_trial: bool = False) -> Floats:
    """p-value of a mean outside ±margin: the larger of two one-sided t tests.

    Equal differences (to 12 digits of the largest) need no t test: the floor or 1.

    Args:
        differences: shape [..., n], n >= 2; each row is tested.
        margin: > 0, in the units of the differences.
        same_trial: whether the two runs of each pair are one trial.

    Returns:
        Shape [...], in [2**-n, 1], or 0.

    Raises:
        ValueError: if the margin is not above 0.
    """
    _check(margin)
    n = differences.shape[-1]
    inside = margin - np.abs(differences.mean(axis=-1))
    equal = are_equal(differences)
    error = np.where(equal, 1.0, differences.std(axis=-1, ddof=1) / np.sqrt(n))
    # The larger p is that of the nearer end.
    p = np.where(equal, np.where(inside > 0, 0.0, 1.0), scipy.stats.t.sf(inside / error, n - 1))
    return np.maximum(p, 0.0 if same_trial else 0.5**n)


def tost_signflip_p(differences: Floats, margin: float, *, same_trial: bool = False) -> Floats:
    """The same by the larger of two one-sided sign-flip tests, each with its end as the null.

    Differences are taken from the end and flipped, so they are assumed to be symmetric around their
    mean, not normal. Exact up to EXACT_SEEDS differences, then of SIGN_FLIPS random flips. The p is
    at most alpha exactly when the inversion interval at level 1 - 2 alpha is inside ±margin.

    Arguments, shapes and errors are those of :func:`tost_p`.
    """
    _check(margin)
    if same_trial:
        return np.zeros(differences.shape[:-1])
    return np.maximum(_above_p(differences + margin), _above_p(margin - differences))


def are_equal(differences: Floats) -> npt.NDArray[np.bool_]:
    """Whether differences [..., n] vary by no more than rounding: 12 digits of the largest."""
    largest = np.abs(differences).max(axis=-1)
    return np.asarray(differences.std(axis=-1, ddof=1) <= 1e-12 * largest)


def _check(margin: float) -> None:
    if not margin > 0:
        raise ValueError(f"the margin of an equivalence must be above 0, got {margin}")


def _above_p(differences: Floats) -> Floats:
    """One-sided p-value [...] that differences [..., n] are symmetric around 0 or less."""
    *leading, n = differences.shape
    rows = of_length_one(differences).reshape(-1, n)
    return in_batches(_share_above, rows, len(signs(n))).reshape(leading)


def _share_above(rows: Floats) -> Floats:
    """Share [k] of all flips of rows [k, n] whose sum is not below that of no flip.

    The second half of the flips is the first with all signs changed.
    """
    sums = rows @ signs(rows.shape[-1]).T
    observed = sums[:, :1] - TIE
    return np.asarray(((sums >= observed).mean(axis=-1) + (-sums >= observed).mean(axis=-1)) / 2)
