"""A test of symmetry that is valid whenever one stops: an e-process (Ramdas et al. 2023).

Given the sizes of symmetric differences, their signs are fair coins. What a bet on the signs has
multiplied a stake by is an e-value: its mean is 1 or less at any time that one stops, so it comes
to 1 / alpha with chance alpha at most, however often one looks.
"""

import numpy as np
from scipy.special import expit

from ablations.statistics.flips import Floats

BETS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""How strongly is bet, on either sign: the e-value is the mean over all ten bets."""


def e_values(differences: Floats) -> Floats:
    """E-value after each of n differences, in the order they came; shape [..., n] in and out.

    A bet of strength b multiplies the stake by exp(b z) / cosh(b z), where z is the difference over
    the root mean square of those so far. At most 2**n / 2; 1 for zeros.

    Raises:
        ValueError: if a difference is not a finite number.
    """
    if not np.isfinite(differences).all():
        raise ValueError("differences must be finite numbers: leave out pairs that have none")
    largest = np.abs(differences).max(axis=-1, keepdims=True)
    scaled = differences / np.where(largest > 0, largest, 1.0)
    so_far = np.sqrt(np.cumsum(scaled**2, axis=-1) / np.arange(1, scaled.shape[-1] + 1))
    z = scaled / np.where(so_far > 0, so_far, 1.0)
    # exp(x) / cosh(x) = 2 expit(2 x), which cannot overflow.
    stakes = [np.cumprod(2 * expit(2 * bet * z), axis=-1) for b in BETS for bet in (b, -b)]
    return np.asarray(np.mean(stakes, axis=0))


def anytime_p(differences: Floats) -> Floats:
    """Two-sided p-value, in (0, 1], that may be looked at after each difference: shape [...].

    1 over the largest e-value so far (Ville): at most alpha at any time with chance alpha at most.
    """
    return np.asarray(np.minimum(1.0, 1 / e_values(differences).max(axis=-1)))
