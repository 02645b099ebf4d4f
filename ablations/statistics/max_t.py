"""Step-down max-T: p-values of several tests on the same seeds, adjusted for their number."""

import numpy as np

from ablations.statistics.flips import TIE, Floats, in_batches, of_length_one, signs


def step_down_p(differences: Floats, flips: Floats | None = None) -> Floats:
    """Two-sided sign-flip p-values, adjusted for m tests (Westfall & Young 1993).

    A flip takes the signs of a seed in all tests together, so tests that say the same cost less
    than Holm makes them pay: a row that is there twice costs nothing. The statistic is the size of
    the studentised mean, so rows may have units of their own. The row with the largest statistic
    is compared with the largest of all rows in each flip, the next one with the largest of the rows
    that are left, and so on; no p is below that of a row before it. The chance that any true null
    has p <= alpha is at most alpha if differences are symmetric, whichever nulls are true.

    Args:
        differences: shape [..., m, n], m tests on n >= 2 seeds, all finite.
        flips: signs to use instead of all or SIGN_FLIPS, [flips, n], the first of them all +1.

    Returns:
        Shape [..., m], in [2 / 2**n, 1]; 1 for rows of zeros. The sign-flip p-value where m is 1.
        Exact up to EXACT_SEEDS seeds, then of SIGN_FLIPS random flips with the +1 correction.
    """
    *leading, m, n = differences.shape
    studies = of_length_one(differences).reshape(-1, m, n)
    flips = signs(n) if flips is None else flips
    p = in_batches(lambda some: _step_down(some, flips), studies, m * len(flips))
    return p.reshape(*leading, m)


def _step_down(studies: Floats, flips: Floats) -> Floats:
    """Adjusted p [studies, m] of rows of length one, [studies, m, n]."""
    order = np.argsort(-np.abs(studies.sum(axis=-1)), kind="stable")
    ordered = np.take_along_axis(studies, order[..., None], axis=1)
    statistics = np.abs(ordered @ flips.T)
    observed = statistics[..., :1].copy()
    upwards = statistics[:, ::-1]
    np.maximum.accumulate(upwards, axis=1, out=upwards)
    shares = (statistics >= observed - TIE).mean(axis=-1)
    p = np.empty_like(shares)
    np.put_along_axis(p, order, np.maximum.accumulate(shares, axis=1), axis=1)
    return p
