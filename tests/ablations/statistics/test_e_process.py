"""The e-process: exact facts over all signs, and how often it crosses."""

import itertools
import math

import numpy as np
import pytest

from ablations.statistics.e_process import anytime_p, e_values


def defined(differences):
    """The e-value of all differences, from its equation."""
    z = [d / math.sqrt(np.mean(differences[: i + 1] ** 2)) for i, d in enumerate(differences)]
    return np.mean(
        [
            math.prod(math.exp(side * b * one) / math.cosh(b * one) for one in z)
            for b in (0.25, 0.5, 1, 2, 4)
            for side in (1, -1)
        ]
    )


def test_e_values_follow_their_equation():
    d = np.random.default_rng(0).standard_normal((3, 9)) + 0.5
    expected = [[defined(row[:n]) for n in range(1, 10)] for row in d]
    assert e_values(d) == pytest.approx(np.array(expected), rel=1e-12)


def test_equal_differences_have_known_e_values():
    assert [round(e, 3) for e in e_values(np.full(8, 0.3))[5:]] == [16.485, 31.214, 59.622]


def test_the_mean_over_all_signs_is_exactly_1_after_each_difference():
    sizes = np.abs(np.random.default_rng(1).standard_normal(7))
    patterns = np.array(list(itertools.product((1, -1), repeat=7)))
    assert e_values(patterns * sizes).mean(axis=0) == pytest.approx(np.ones(7), abs=1e-12)


def test_p_is_one_over_the_largest_so_far():
    d = np.concatenate([np.ones(7), -np.ones(7)])
    values = e_values(d)
    assert values.argmax() == 6
    assert anytime_p(d) == pytest.approx(1 / values[6])
    assert anytime_p(np.array([1.0, -1.0])) == 1.0


@pytest.mark.parametrize("change", [-1.0, 1e-300, 1e300])
def test_sign_and_unit_do_not_matter(change):
    d = np.random.default_rng(2).standard_normal(10) + 1
    assert e_values(change * d) == pytest.approx(e_values(d))


def test_zeros_say_nothing():
    assert e_values(np.zeros(5)).tolist() == [1.0] * 5
    d = np.array([0.0, 0.0, 1.0, 2.0])
    assert e_values(d)[:2].tolist() == [1.0, 1.0]
    # One sign alone is as likely as the other: its e-value is 1.
    assert e_values(d)[2] == pytest.approx(1.0)
    assert e_values(d)[3] > 1.1


def test_a_thousand_equal_differences_do_not_overflow():
    assert anytime_p(np.ones(1000)) < 1e-200


def test_it_crosses_no_more_often_than_alpha_and_finds_large_effects():
    d = np.random.default_rng(3).standard_normal((5_000, 30))
    crossed = (anytime_p(d) <= 0.05).mean()
    # An independent simulation gave .018 by 10 and .029 by 30 differences; power .65, .79, .97.
    assert crossed == pytest.approx(0.029, abs=3 * math.sqrt(0.029 / 5_000))
    assert (anytime_p(d[:, :10]) <= 0.05).mean() == pytest.approx(
        0.018, abs=3 * math.sqrt(0.018 / 5_000)
    )
    for n, power in ((8, 0.65), (10, 0.79), (16, 0.97)):
        assert (anytime_p(d[:, :n] + 1.5) <= 0.05).mean() == pytest.approx(power, abs=0.025)


@pytest.mark.parametrize("wrong", [math.nan, -math.inf])
def test_what_is_no_number_is_refused(wrong):
    with pytest.raises(ValueError, match="finite"):
        e_values(np.array([1.0, wrong]))
