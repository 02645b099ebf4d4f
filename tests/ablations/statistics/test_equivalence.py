"""Equivalence against its definitions: statsmodels' t tests, and flips one at a time."""

import itertools

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.weightstats import DescrStatsW

from ablations.statistics.equivalence import are_equal, tost_p, tost_signflip_p
from ablations.statistics.sign_flip import inversion_interval
from ablations.statistics.summary import summarise


def enumerated_p(differences, margin):
    """Larger of two one-sided sign-flip p-values, one flip at a time."""
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    above, below = differences + margin, differences - margin
    return max(
        np.mean([np.dot(above, flip) >= above.sum() - 1e-9 for flip in flips]),
        np.mean([np.dot(below, flip) <= below.sum() + 1e-9 for flip in flips]),
    )


@pytest.mark.parametrize("n", [2, 6, 8])
@pytest.mark.parametrize("margin", [0.3, 1.0])
def test_p_by_t_is_that_of_statsmodels_or_the_floor(n, margin):
    rows = np.random.default_rng(n).standard_normal((40, n)) * 0.5
    expected = [DescrStatsW(row).ttost_mean(-margin, margin)[0] for row in rows]
    assert tost_p(rows, margin) == pytest.approx(np.maximum(expected, 2.0**-n), rel=1e-9)


@pytest.mark.parametrize("n", [2, 5, 6, 8])
@pytest.mark.parametrize("margin", [0.3, 1.0])
def test_p_by_flips_is_that_of_enumeration(n, margin):
    rows = np.random.default_rng(n).standard_normal((10, n)) * 0.5
    expected = [enumerated_p(row, margin) for row in rows]
    assert tost_signflip_p(rows, margin) == pytest.approx(expected, abs=1e-12)


def test_ties_with_a_margin_count_as_outside():
    d = np.array([0.1, 0.1, 0.1, 0.2, -0.1, 0.05])
    assert tost_signflip_p(d, 0.1) == pytest.approx(enumerated_p(d, 0.1), abs=1e-12)
    assert tost_signflip_p(np.full(6, 0.1), 0.1) == 1.0


@pytest.mark.parametrize("test", [tost_p, tost_signflip_p])
@pytest.mark.parametrize("n", [2, 6, 8, 12])
def test_no_p_is_below_what_n_signs_can_show(test, n):
    for d in (np.zeros(n), np.full(n, 1e-13), np.linspace(-1e-6, 1e-6, n)):
        assert test(d, 1.0) == pytest.approx(2.0**-n, rel=1e-12)
    assert test(np.zeros(n), 1e-12) == 2.0**-n


@pytest.mark.parametrize("test", [tost_p, tost_signflip_p])
def test_runs_of_the_same_trial_need_no_proof(test):
    assert test(np.zeros(6), 1e-12, same_trial=True) == 0.0


@pytest.mark.parametrize("test", [tost_p, tost_signflip_p])
def test_equal_differences_at_or_beyond_the_margin_are_not_equivalent(test):
    assert test(np.full(8, -1.0), 1.0) == 1.0
    assert test(np.full(8, 2.1), 1.0) == 1.0


@pytest.mark.parametrize("test", [tost_p, tost_signflip_p])
def test_sign_scale_and_order_do_not_matter(test):
    rng = np.random.default_rng(0)
    d = rng.standard_normal((20, 8)) * 0.5 + 0.2
    p = test(d, 1.0)
    assert test(-d, 1.0) == pytest.approx(p, abs=1e-12)
    assert test(d * 1e-7, 1e-7) == pytest.approx(p, abs=1e-12)
    assert test(d[:, rng.permutation(8)], 1.0) == pytest.approx(p, abs=1e-12)
    assert test(d.reshape(4, 5, 8), 1.0).tolist() == p.reshape(4, 5).tolist()


@pytest.mark.parametrize("n", [6, 8, 9])
def test_p_by_flips_agrees_with_the_narrow_inversion_interval(n):
    rows = np.random.default_rng(n).standard_normal((200, n))
    low, high = inversion_interval(rows, 0.1)
    inside = (low > -1.0) & (high < 1.0)
    assert set(inside) == {True, False}
    assert ((tost_signflip_p(rows, 1.0) <= 0.05) == inside).all()


def test_p_by_flips_of_many_is_near_that_by_t():
    d = np.random.default_rng(3).standard_normal(30)
    d -= d.mean()
    by_t = float(DescrStatsW(d).ttost_mean(-0.4, 0.4)[0])
    assert tost_signflip_p(d, 0.4) == pytest.approx(by_t, rel=0.2)


def test_size_at_the_margin_is_at_most_alpha():
    rng = np.random.default_rng(4)
    at_margin = 1.0 + rng.standard_normal((20_000, 8))
    wrong = np.mean(tost_signflip_p(at_margin, 1.0) <= 0.05)
    # 12 of 256 patterns is the most that 0.05 allows.
    assert wrong == pytest.approx(12 / 256, abs=3 * np.sqrt(0.047 * 0.953 / 20_000))


@pytest.mark.parametrize("test", [tost_p, tost_signflip_p])
@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_a_margin_must_be_above_0(test, margin):
    with pytest.raises(ValueError, match="margin"):
        test(np.ones(6), margin)


def test_summary_has_both_and_the_skewness():
    d = [0.1, 0.2, -0.1, 0.4, 0.0, 1.3]
    summary = summarise(d, alpha=0.05, margin=1.0, test="signflip")
    assert summary.p_equivalence == tost_p(np.array(d), 1.0)
    assert summary.p_equivalence_signflip == tost_signflip_p(np.array(d), 1.0)
    centred = np.array(d) - np.mean(d)
    third = np.mean(centred**3) / np.mean(centred**2) ** 1.5
    assert summary.skewness == pytest.approx(third)
    zeros = summarise([0.0] * 6, alpha=0.05, margin=1e-12, test="t", same_trial=True)
    assert (zeros.p_equivalence, zeros.p_equivalence_signflip, zeros.skewness) == (0.0, 0.0, None)
    assert scipy.stats.skew(d) == pytest.approx(third)


def test_equal_differences_are_told_row_by_row():
    rows = np.stack([np.zeros(8), np.linspace(-0.4, 0.5, 8), np.full(8, 1.5)])
    assert tost_p(rows, 1.0).tolist() == [float(tost_p(row, 1.0)) for row in rows]
    assert are_equal(rows).tolist() == [True, False, True]


def test_equal_is_to_twelve_digits_of_the_largest():
    assert are_equal(1e6 + np.array([0.0, 1e-7, 0.0, 1e-7]))
    assert not are_equal(1e6 + np.array([0.0, 1e-5, 0.0, 1e-5]))
    assert are_equal(-1e6 + np.array([0.0, 1e-7, 0.0, 1e-7]))
