"""Where a mean crosses 0: against Fieller's formula, in simulation, and where it does not."""

import math

import numpy as np
import pytest
from scipy import stats

from ablations.statistics.crossover import crossover


def drawn(seed: int, n: int, means, deviation=1.0):
    rng = np.random.default_rng(seed)
    return np.array(means) + deviation * rng.standard_normal((n, len(means)))


def fieller(first, last, alpha):
    """Interval of the ratio of means -E first / E (last - first), by Fieller's formula."""
    n, difference = len(first), last - first
    top, bottom = -first.mean(), difference.mean()
    v11, v22 = first.var(ddof=1) / n, difference.var(ddof=1) / n
    v12 = -np.cov(first, difference)[0, 1] / n
    ratio, t = top / bottom, stats.t.ppf(1 - alpha / 2, n - 1)
    g = t * t * v22 / bottom**2
    assert g < 1
    root = v11 - 2 * ratio * v12 + ratio**2 * v22 - g * (v11 - v12**2 / v22)
    half = t / abs(bottom) * math.sqrt(root)
    return tuple((ratio - g * v12 / v22 + sign * half) / (1 - g) for sign in (-1, 1))


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_between_two_places_the_set_is_fiellers_interval(alpha):
    values = drawn(0, 8, [-4.0, 6.0])
    values[:, 1] += 0.5 * values[:, 0]
    found = crossover(values, [4.0, 8.0], alpha=alpha)
    expected = [4 + 4 * u for u in fieller(*values.T, alpha)]
    assert found.within == (pytest.approx(expected),)
    first, last = values.mean(axis=0)
    assert found.at == pytest.approx([4 + 4 * first / (first - last)])


def test_the_set_has_the_crossing_as_often_as_it_says():
    rng = np.random.default_rng(1)
    places, means = [1.0, 2.0, 4.0], np.array([-1.0, -0.5, 1.5])
    truth = 2 + 2 * 0.5 / 2
    mixing = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.3, 0.3, 1.0]])
    draws = 3000
    covered = 0
    for _ in range(draws):
        found = crossover(means + rng.standard_normal((8, 3)) @ mixing.T, places)
        covered += any(low <= truth <= high for low, high in found.within)
    assert abs(covered / draws - 0.95) <= 3 * math.sqrt(0.05 * 0.95 / draws)


def test_places_are_those_whose_t_interval_has_zero_in_it():
    values, places = drawn(2, 6, [-1.0, 0.4, -0.2, 2.0]), [0.0, 1.0, 2.0, 5.0]
    found = crossover(values, places)
    for place in np.linspace(0, 5, 401):
        at = np.array([np.interp(place, places, one) for one in values])
        low, high = stats.ttest_1samp(at, 0.0).confidence_interval()
        is_in = any(low <= place <= high for low, high in found.within)
        assert is_in == (low <= 0 <= high)


def test_a_mean_that_turns_twice_crosses_twice():
    found = crossover(drawn(3, 6, [-1.0, 1.0, -1.0], 0.01), [1.0, 2.0, 3.0])
    assert found.at == pytest.approx([1.5, 2.5], abs=0.02)
    assert len(found.within) == 2


def test_a_mean_of_one_sign_crosses_nowhere():
    found = crossover(drawn(4, 6, [1.0, 2.0], 0.01), [1.0, 2.0])
    assert found.at == () == found.within


def test_a_wide_interval_ends_at_the_last_place():
    found = crossover(drawn(5, 6, [0.1, 0.1], 5.0), [1.0, 2.0])
    assert found.within == ((1.0, 2.0),)


def test_without_spread_the_set_is_the_crossing_alone():
    found = crossover([[-1.0, 3.0]] * 4, [0.0, 4.0])
    assert found.at == (1.0,)
    assert found.within == ((1.0, 1.0),)
    zero_at_a_place = crossover([[-1.0, 0.0, 1.0]] * 4, [0.0, 1.0, 2.0])
    assert zero_at_a_place.at == (1.0,)
    assert zero_at_a_place.within == ((1.0, 1.0),)


@pytest.mark.parametrize("places", [[2.7, 3.7, 13.1], [1.1, 5.3, 18.3], [0.1, 0.3, 0.7]])
def test_ends_and_rungs_are_exactly_those_given(places):
    wide = crossover(drawn(7, 6, [0.1, 0.0, -0.1], 5.0), places)
    assert (wide.within[0][0], wide.within[-1][1]) == (places[0], places[-1])
    at_a_rung = crossover([[-1.0, 0.0, 2.0], [-2.0, 0.0, 3.0]], places)
    assert at_a_rung.at == (places[1],)


def test_units_and_scale_change_nothing_but_the_unit():
    values = drawn(6, 8, [-2.0, 1.0, 3.0])
    found = crossover(values, [1.0, 2.0, 3.0])
    scaled = crossover(values * 1e-3, [10.0, 20.0, 30.0])
    assert np.array(scaled.within) == pytest.approx(10 * np.array(found.within))
    turned = crossover(-values, [1.0, 2.0, 3.0])
    assert np.array(turned.within) == pytest.approx(np.array(found.within))


@pytest.mark.parametrize(
    ("values", "places", "alpha", "said"),
    [
        ([[1.0, 2.0]], [1.0, 2.0], 0.05, "2 or more units"),
        ([[1.0], [2.0]], [1.0], 0.05, "2 places or more"),
        ([[1.0, 2.0]] * 3, [1.0, 2.0, 3.0], 0.05, r"got \(3, 2\)"),
        ([[1.0, 2.0]] * 3, [2.0, 2.0], 0.05, "ascend"),
        ([[1.0, math.nan]] * 3, [1.0, 2.0], 0.05, "finite"),
        ([[1.0, 2.0]] * 3, [1.0, 2.0], 1.0, "alpha"),
    ],
)
def test_what_is_no_such_thing_is_refused(values, places, alpha, said):
    with pytest.raises(ValueError, match=said):
        crossover(values, places, alpha=alpha)
