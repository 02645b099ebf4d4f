"""Power of planned studies, against published tables and simulation."""

import numpy as np
import pytest
import scipy.stats

from ablations.spec import Hypothesis
from ablations.statistics.power import effect_for, seeds_for, t_power, tost_power, upper_deviation
from ablations.statistics.summary import summarise
from ablations.verdicts.planning import (
    fewest_seeds,
    largest_deviation,
    power_text,
    seeds_to_plan,
)


def hypothesis(**changes):
    stated = {"metric": "m", "contrast": ("a", "b"), "direction": "falls", "smallest_effect": 0.05}
    return Hypothesis(**{**stated, **changes})


@pytest.mark.parametrize(
    ("margin", "seeds", "power"),
    [(1, 8, 0.64), (1, 10, 0.80), (1, 12, 0.89), (1.25, 8, 0.87), (1.5, 6, 0.87), (2, 5, 0.95),
     (0.8, 16, 0.84)],
)  # fmt: skip
def test_power_of_equivalence_is_that_of_the_design(margin, seeds, power):
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
    shifted = scipy.stats.nct(df=7, nc=0.075 / found * 8**0.5)
    critical = scipy.stats.t(7).ppf(0.975)
    assert shifted.sf(critical) + shifted.cdf(-critical) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("power", [t_power, tost_power])
@pytest.mark.parametrize("level", [0.05, 0.05 / 3, 1e-4])
def test_seeds_and_effects_are_inverse(power, level):
    for seeds in (6, 8, 30, 1000):
        effect = effect_for(power, seeds, level)
        assert power(effect, seeds, level) == pytest.approx(0.8, abs=1e-6)
        assert seeds_for(power, effect * 1.000_001, level) == seeds
        assert seeds_for(power, effect * 0.999_999, level) == seeds + 1


def test_what_is_promised_before_a_study_is_what_an_open_verdict_plans_for():
    # The plan of an open verdict, run again with the deviation it plans for, is just enough.
    for direction in ("rises", "holds"):
        one = hypothesis(direction=direction)
        for deviation in (0.02, 0.05, 0.12):
            d = deviation * np.array([-1, 1, -1, 1, -1, 1, -1, 1])
            summary = summarise(list(d), alpha=0.05, margin=0.05, test="signflip")
            planned = upper_deviation(summary.standard_deviation, 8)
            needed = seeds_to_plan(one, summary, 3)
            assert largest_deviation(one, needed, 3) >= planned
            if needed > fewest_seeds(one, 3):
                assert largest_deviation(one, needed - 1, 3) < planned


def test_a_family_costs_power():
    alone, among = (largest_deviation(hypothesis(), 8, size) for size in (1, 4))
    assert among < alone
    assert largest_deviation(hypothesis(), 8, 8) is None
    assert largest_deviation(hypothesis(test="t"), 8, 8) is not None
    assert largest_deviation(hypothesis(direction="holds"), 8, 8) == pytest.approx(
        largest_deviation(hypothesis(direction="holds"), 8)
    )


def test_power_is_said_in_plain_words():
    assert power_text(hypothesis(), 8) == (
        "8 seeds find a true difference of 0.075 with a chance of 80 % if the standard deviation "
        "of paired differences is 0.065 or less (t test at 0.05)"
    )
    assert "(t test at 0.0125)" in power_text(hypothesis(), 8, 4)
    assert "equal arms differ by less than 0.05" in power_text(hypothesis(direction="holds"), 8)
    assert power_text(hypothesis(), 5) == "5 seeds decide nothing; 6 are the fewest"
    assert power_text(hypothesis(), 8, 8) == (
        "8 seeds cannot support it: the least p of so many sign flips, 0.0078, is above 0.0063 "
        "(Holm over 8); 9 are the fewest"
    )
