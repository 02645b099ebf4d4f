"""Effects without a unit: standardised differences, and how often one arm is above the other."""

import math

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from ablations.statistics.proportions import Interval, clopper_pearson

__all__ = ["Interval", "hedges_g", "superiority"]


def hedges_g(dz: float, n: int) -> float:
    """dz of n >= 3 differences without its small-sample bias (Hedges 1981)."""
    half = (n - 1) / 2
    return dz * math.exp(gammaln(half) - gammaln(half - 0.5)) / math.sqrt(half)


def superiority(differences: npt.NDArray[np.float64], alpha: float) -> tuple[float, Interval]:
    """Share of differences [n], n >= 1, that are above 0, and its interval at level 1 - alpha.

    Ties count half in the share. The interval is that of Clopper & Pearson (1934), with ties
    against the arm in its lower end and for it in its upper end.
    """
    n = len(differences)
    wins, ties = int((differences > 0).sum()), int((differences == 0).sum())
    low, _ = clopper_pearson(wins, n, alpha)
    _, high = clopper_pearson(wins + ties, n, alpha)
    return (wins + ties / 2) / n, (low, high)
