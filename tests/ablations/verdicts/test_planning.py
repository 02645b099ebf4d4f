"""Closed forms of power, and the seeds of open verdicts, against tables and simulation."""

import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.power import TTestPower

from ablations.spec import Hypothesis, Multiplicity
from ablations.statistics.power import (
    found_power,
    seeds_for,
    sign_flip_level,
    tost_power,
    upper_deviation,
)
from ablations.statistics.sign_flip import signflip_p
from ablations.statistics.summary import summarise
from ablations.verdicts.planning import (
    fewest_seeds,
    holm_sizes,
    least_p,
    seeds_text,
    seeds_to_plan,
)
from ablations.verdicts.power import Design
from ablations.verdicts.spread import assumed


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


@pytest.mark.parametrize("power", [TTestPower().power, tost_power])
@pytest.mark.parametrize("level", [0.05, 0.05 / 3])
def test_seeds_are_the_fewest_that_have_the_power(power, level):
    for effect in (2.0, 1.0, 0.5, 0.1):
        seeds = seeds_for(power, effect, level)
        assert power(effect, seeds - 1, level) < 0.8 <= power(effect, seeds, level)


def test_found_power_is_that_of_simulated_means_that_are_large_enough():
    draws = 1.2 + np.random.default_rng(0).standard_normal((40_000, 9))
    low = draws.mean(1) - scipy.stats.t(8).isf(0.025) * draws.std(1, ddof=1) / 3
    for at_least in (0.0, 0.8, 1.2):
        share = np.mean((low > 0) & (draws.mean(1) >= at_least))
        assert found_power(1.2, at_least, 9, 0.05) == pytest.approx(share, abs=0.01)
    expected = TTestPower().power(1.2, 9, 0.05)
    assert found_power(1.2, 0.0, 9, 0.05) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("seeds", range(5, 13))
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3, 0.01])
def test_the_level_of_signs_is_the_largest_p_they_have_up_to_alpha(seeds, alpha):
    draws = np.random.default_rng(0).standard_normal((400, seeds)) + 1.2
    attained = signflip_p(draws)
    below = attained[attained <= alpha]
    level = sign_flip_level(alpha, seeds)
    assert level <= alpha < level + 2 / 2**seeds
    assert (below <= level).all()


def test_no_differences_have_a_p_below_the_least():
    flips, t = hypothesis(), hypothesis(test="t")
    holds = hypothesis(direction="holds")
    for n in (6, 9, 17):
        same = summarise([0.01] * n, alpha=0.05, margin=0.05, test="signflip")
        assert same.p == pytest.approx(least_p(flips, n))
        assert same.p_equivalence == pytest.approx(least_p(holds, n))
    assert least_p(t, 8) == 0.0


def test_fewest_seeds_are_the_first_whose_least_p_is_alpha_at_most():
    assert fewest_seeds(hypothesis()) == fewest_seeds(hypothesis(test="t", alpha=1e-6)) == 6
    assert fewest_seeds(hypothesis(alpha=0.001)) == 11
    assert fewest_seeds(hypothesis(direction="holds", alpha=0.001)) == 10
    assert fewest_seeds(hypothesis(direction="holds", alpha=1e-6)) == 20
    assert fewest_seeds(hypothesis(alpha=1e-6)) is None
    # Of random flips 3 of 65,537 are the least at 17 seeds, and 1 from 18 on.
    assert fewest_seeds(hypothesis(alpha=2e-5)) == 18


@pytest.mark.parametrize("family", [1, 3, 8])
@pytest.mark.parametrize("deviation", [0.6, 0.9, 1.2, 1.6])
def test_seeds_of_an_open_verdict_have_the_power_that_is_promised(family, deviation):
    stated = {f"h{i}": hypothesis(smallest_effect=1.0) for i in range(family)}
    shown = np.array([-1, 1] * 4) / np.std([-1, 1] * 4, ddof=1) / upper_deviation(1.0, 8)
    summary = summarise(list(deviation * shown), alpha=0.05, margin=1.0, test="signflip")
    needed = seeds_to_plan(stated["h0"], summary, family)

    def power(seeds):
        design = Design(
            hypotheses=stated, claims={}, seeds=seeds, spread=assumed(stated, deviation)
        )
        return np.mean(list(design.power(1.5, 1500).hypotheses.values()))

    assert power(needed) > 0.78
    # Alone it is the fewest; of a family that is all true, up to a third more than the fewest.
    assert needed == 6 or power(needed - 1 - family // 2) < 0.89 - 0.08 * (family == 1)


def test_by_holm_signs_must_attain_their_share_of_alpha():
    summary = summarise([0.1, -0.1] * 4, alpha=0.05, margin=1.0, test="signflip")
    stated = hypothesis(smallest_effect=1.0)
    assert seeds_to_plan(stated, summary, 8) == 6
    assert seeds_to_plan(stated, summary, 8, by_holm=True) == 9


def test_seeds_of_an_equivalence_are_those_of_tost():
    one = hypothesis(direction="holds")
    for deviation in (0.02, 0.05, 0.12):
        d = deviation * np.array([-1, 1, -1, 1, -1, 1, -1, 1])
        summary = summarise(list(d), alpha=0.05, margin=0.05, test="signflip")
        margin = 0.05 / upper_deviation(summary.standard_deviation, 8)
        expected = max(6, seeds_for(tost_power, min(4, margin), 0.05))
        assert seeds_to_plan(one, summary, 3) == expected


def test_seeds_are_said_in_plain_words():
    assert seeds_text(hypothesis(), 8, 12) == (
        "12 seeds are needed for 80 % power for a true effect of 0.075; 8 ran"
    )
    assert "to show that nothing changes" in seeds_text(hypothesis(direction="holds"), 8, 12)
    assert "more than 10,000 seeds" in seeds_text(hypothesis(), 8, None)


def test_the_least_p_is_multiplied_by_the_size_of_the_family_where_holm_adjusts_it():
    signs = {name: hypothesis() for name in "ab"}
    more = {"t": hypothesis(test="t", family="t"), "u": hypothesis(family="t")}
    more |= {"holds": hypothesis(direction="holds"), "same": hypothesis(direction="holds")}
    more |= {"extra": hypothesis(secondary=True), "more": hypothesis(secondary=True)}
    stated = signs | more | {"alone": hypothesis(family="alone")}
    ones = dict.fromkeys(stated, 1)
    assert holm_sizes(stated, Multiplicity(by="max-t")) == ones | {"t": 2, "u": 2}
    assert holm_sizes(stated, Multiplicity(by="holm")) == ones | dict.fromkeys("abtu", 2)
    assert holm_sizes(stated, Multiplicity(by="fixed-sequence")) == ones


def test_the_least_p_has_its_closed_form_and_is_never_above_1():
    assert least_p(hypothesis(), 8) == 2 / 2**8
    assert least_p(hypothesis(), 8, 3) == 6 / 2**8
    assert least_p(hypothesis(), 3, 8) == 1.0
    ends = {"metric": "", "endpoint": "collapsed", "direction": "rises", "smallest_effect": 0.5}
    assert least_p(hypothesis(**ends), 8, 2) == 4 / 2**8
    # Fisher: two of the tables with all eight of one arm and none of the other.
    apart = hypothesis(**ends, paired=False)
    assert least_p(apart, 8, 3) == pytest.approx(3 * 2 / math.comb(16, 8))
    assert least_p(apart, 2, 4) == 1.0
    holds = {**ends, "direction": "holds"}
    assert least_p(hypothesis(**holds), 6) == pytest.approx(2 * 0.5**6)
    assert least_p(hypothesis(**holds, contrast=("a",)), 6) == pytest.approx(0.5**6)
    assert least_p(hypothesis(**holds | {"smallest_effect": 0.1}), 6) == 1.0
    assert least_p(hypothesis(**holds | {"smallest_effect": 1.5}), 6) == 2.0**-6
    assert least_p(hypothesis(direction="holds", smallest_effect=0.001), 6, 9) == 2.0**-6


def test_fewest_seeds_may_have_a_least_p_of_exactly_alpha():
    for n in (6, 8, 16):
        assert fewest_seeds(hypothesis(alpha=2 / 2**n)) == n
    assert fewest_seeds(hypothesis(), 8) == 9
    assert fewest_seeds(hypothesis(alpha=1e-5)) is None
    assert fewest_seeds(hypothesis(direction="holds", alpha=2.0**-9)) == 9


@pytest.mark.parametrize("enough", [2, 3, 4, 5, 100, 9_999, 10_000])
def test_the_search_finds_the_first_number_of_seeds_that_has_the_power(enough):
    def power(effect, seeds, level):
        return 0.8 if seeds >= enough else 0.8 - 1e-9

    assert seeds_for(power, 1.0, 0.05) == enough
    assert seeds_for(power, 1.0, 0.05, 0.9) is None


def test_the_search_gives_up_beyond_ten_thousand():
    assert seeds_for(lambda effect, seeds, level: float(seeds > 10_000), 1.0, 0.05) is None


def test_signs_of_few_have_no_level_and_many_have_alpha_itself():
    assert sign_flip_level(0.05, 5) == 0.0
    assert sign_flip_level(2 / 2**6, 6) == 2 / 2**6
    assert sign_flip_level(0.05, 60) == 0.05


def test_the_limit_of_a_deviation_is_that_of_chi_square():
    # Of two differences (n - 1) s**2 / sigma**2 is the square of a standard normal.
    quantile = scipy.stats.norm.ppf(0.6) ** 2
    assert upper_deviation(3.0, 2) == pytest.approx(3.0 / np.sqrt(quantile))
    assert upper_deviation(1.0, 8) == pytest.approx(np.sqrt(7 / scipy.stats.chi2.ppf(0.2, 7)))


def test_differences_that_do_not_vary_need_the_fewest_seeds():
    for direction in ("falls", "holds"):
        for d in ([0.0] * 8, [1e-9, -1e-9] * 4):
            summary = summarise(d, alpha=0.05, margin=0.05, test="signflip")
            assert seeds_to_plan(hypothesis(direction=direction), summary, 1) == 6


def test_no_number_of_seeds_is_planned_for_an_effect_that_is_too_small_for_the_search():
    summary = summarise([1.0, -1.0] * 4, alpha=0.05, margin=1e-3, test="signflip")
    assert seeds_to_plan(hypothesis(smallest_effect=1e-3), summary, 1) is None


def test_more_seeds_than_there_are_flips_for_cannot_be_planned():
    summary = summarise([0.1, -0.1] * 4, alpha=1e-6, margin=1.0, test="signflip")
    assert seeds_to_plan(hypothesis(alpha=1e-6, smallest_effect=1.0), summary, 1) is None
    by_t = hypothesis(alpha=1e-6, smallest_effect=1.0, test="t")
    assert seeds_to_plan(by_t, summary, 1) > 6
