"""Power of planned studies, against published tables and simulation."""

import numpy as np
import pytest
import scipy.stats

from ablations.spec import Hypothesis
from ablations.statistics.equivalence import tost_power
from ablations.verdicts.planning import largest_deviation, power_text


def hypothesis(**changes):
    stated = {"metric": "m", "contrast": ("a", "b"), "direction": "falls", "smallest_effect": 0.05}
    return Hypothesis(**{**stated, **changes})


@pytest.mark.parametrize(
    ("margin", "seeds", "power"),
    [(1, 8, 0.64), (1, 10, 0.80), (1, 12, 0.89), (1.25, 8, 0.87), (1.5, 6, 0.87), (2, 5, 0.95),
     (0.8, 16, 0.84)],
)  # fmt: skip
def test_power_of_equivalence_is_that_of_the_design(margin, seeds, power):
    # METRICS C.2.
    assert tost_power(margin, seeds, 0.05) == pytest.approx(power, abs=0.011)


def test_power_of_equivalence_is_that_of_simulated_studies():
    draws = np.random.default_rng(0).standard_normal((40_000, 9))
    mean, error = draws.mean(1), draws.std(1, ddof=1) / 3
    reach = scipy.stats.t(8).ppf(0.95) * error
    share = np.mean(np.abs(mean) + reach < 1.1)
    assert tost_power(1.1, 9, 0.05) == pytest.approx(share, abs=0.01)


def test_the_deviation_that_is_found_has_the_power_that_is_said():
    found = largest_deviation(hypothesis(direction="holds"), 8)
    assert tost_power(0.05 / found, 8, 0.05) == pytest.approx(0.8, abs=1e-6)
    found = largest_deviation(hypothesis(), 8)
    shifted = scipy.stats.nct(df=7, nc=0.1 / found * 8**0.5)
    critical = scipy.stats.t(7).ppf(0.975)
    assert shifted.sf(critical) + shifted.cdf(-critical) == pytest.approx(0.8, abs=1e-4)


def test_power_is_said_in_plain_words():
    assert power_text(hypothesis(), 8) == (
        "8 seeds find a true difference of 0.1 with a chance of 80 % if the standard deviation of "
        "paired differences is 0.087 or less"
    )
    assert "equal arms differ by less than 0.05" in power_text(hypothesis(direction="holds"), 8)
    assert power_text(hypothesis(), 5) == "5 seeds decide nothing; 6 are the fewest"
