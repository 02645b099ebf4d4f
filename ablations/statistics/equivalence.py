"""Two one-sided tests of equivalence (TOST, Schuirmann 1987)."""

import numpy as np
import numpy.typing as npt
from statsmodels.stats.weightstats import DescrStatsW


def tost_p(differences: npt.NDArray[np.float64], margin: float) -> float:
    """p-value of a mean outside ±margin: the larger of two one-sided t tests.

    Shape [n], n >= 2. Equal differences (to 12 digits of the largest) need no test: 0 or 1.
    """
    if are_equal(differences):
        return 0.0 if abs(float(differences.mean())) < margin else 1.0
    return float(DescrStatsW(differences).ttost_mean(-margin, margin)[0])


def are_equal(differences: npt.NDArray[np.float64]) -> bool:
    """Whether differences [n] vary by no more than rounding does: 12 digits of the largest."""
    return bool(differences.std(ddof=1) <= 1e-12 * np.abs(differences).max())
