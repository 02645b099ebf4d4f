"""How far differences are expected to vary: from a pilot, or assumed."""

import numpy as np
import pytest

from ablations.spec import Hypothesis
from ablations.statistics.power import upper_deviation
from ablations.verdicts.evidence import Run
from ablations.verdicts.spread import assumed, of_pilot, shrunk


def hypothesis(arm="a", **changes):
    stated = {"metric": "m", "contrast": (arm, "baseline"), "direction": "rises",
              "smallest_effect": 0.5}  # fmt: skip
    return Hypothesis(**{**stated, **changes})


def runs_of(values):
    """Finished runs of these arms, and a baseline of 0."""
    return {
        (arm, seed): Run(status="finished", start={}, end={"m": float(value)})
        for arm, of_arm in {**values, "baseline": np.zeros(9)}.items()
        for seed, value in enumerate(of_arm)
    }


def test_what_is_assumed_is_in_smallest_effects():
    stated = {"a": hypothesis(), "b": hypothesis(smallest_effect=2.0)}
    spread = assumed(stated, 0.8)
    assert spread.deviations == {"a": 0.4, "b": 1.6}
    assert not spread.from_pilot
    np.testing.assert_array_equal(spread.correlation, np.eye(2))


def test_the_deviation_of_a_pilot_is_exceeded_one_time_in_five():
    draws = np.random.default_rng(0).standard_normal((4000, 3))
    stated = {"a": hypothesis()}
    found = [of_pilot(stated, runs_of({"a": one}), range(3)).deviations["a"] for one in draws]
    assert np.mean(np.array(found) < 1.0) == pytest.approx(0.2, abs=0.02)


def test_what_a_pilot_has_no_two_pairs_of_is_assumed():
    stated = {"a": hypothesis("a"), "b": hypothesis("b"), "c": hypothesis("c")}
    runs = runs_of({"a": [1.0, 2.0, 4.0], "b": [1.0]})
    spread = of_pilot(stated, runs, range(3), 0.8)
    assert spread.from_pilot == {"a"}
    assert spread.deviations["b"] == spread.deviations["c"] == pytest.approx(0.4)
    np.testing.assert_array_equal(spread.correlation, np.eye(3))


def test_correlations_of_many_seeds_are_kept_and_those_of_few_are_not():
    rng = np.random.default_rng(0)
    common = rng.standard_normal(2000)
    many = np.stack([common + rng.standard_normal(2000) for _ in range(4)])
    np.testing.assert_allclose(shrunk(many), np.corrcoef(many), atol=0.01)
    independent = [shrunk(rng.standard_normal((6, 3)))[0, 1] for _ in range(300)]
    assert np.mean(np.abs(independent)) < 0.2  # of three seeds as they come it is 0.64


def test_shrunk_correlations_can_be_and_rows_that_do_not_vary_have_none():
    rng = np.random.default_rng(1)
    values = rng.standard_normal((8, 3))
    values[3] = 0.7
    found = shrunk(values)
    np.testing.assert_array_equal(found[3], np.eye(8)[3])
    np.testing.assert_array_equal(np.diag(found), np.ones(8))
    assert np.linalg.eigvalsh(found).min() > -1e-9
    pair = np.array([[1.0, 2.0, 4.0], [2.0, 4.0, 8.0]])
    np.testing.assert_allclose(shrunk(pair), [[1.0, 0.5], [0.5, 1.0]])


def test_correlations_lose_the_share_that_independent_rows_would_show():
    # Of three squares one is 1, so that their mean is 1 / 3; of 16 seeds chance shows 1 / 15.
    alike, other = np.tile([1.0, -1.0], 8), np.tile([1.0, 1.0, -1.0, -1.0], 4)
    expected = [[1, 0.8, 0], [0.8, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(shrunk(np.array([alike, alike, other])), expected, atol=1e-12)


def test_two_pairs_are_a_pilot_and_say_nothing_of_correlation():
    stated = {"a": hypothesis("a"), "b": hypothesis("b")}
    spread = of_pilot(stated, runs_of({"a": [1.0, 3.0], "b": [2.0, 5.0]}), range(2))
    assert spread.from_pilot == {"a", "b"}
    assert spread.deviations["a"] == pytest.approx(upper_deviation(np.sqrt(2), 2))
    np.testing.assert_array_equal(spread.correlation, np.eye(2))
    one = of_pilot(stated, runs_of({"a": [1.0], "b": [2.0]}), range(1), 0.8)
    assert (one.from_pilot, one.deviations["a"]) == (frozenset(), pytest.approx(0.4))
    np.testing.assert_array_equal(one.correlation, np.eye(2))


def test_correlations_are_those_of_the_hypotheses_that_have_every_pair():
    a = np.array([1.0, 2.0, 4.0])
    stated = {name: hypothesis(name) for name in "abc"}
    spread = of_pilot(stated, runs_of({"a": a, "b": a[:2], "c": -2 * a}), range(3))
    assert spread.from_pilot == {"a", "b", "c"}
    expected = [[1.0, 0.0, -0.5], [0.0, 1.0, 0.0], [-0.5, 0.0, 1.0]]
    np.testing.assert_allclose(spread.correlation, expected)


def test_how_runs_end_has_no_deviation():
    ends = hypothesis(metric="", endpoint="collapsed")
    assert assumed({"a": ends, "b": hypothesis("b")}).deviations == {"b": 0.5}
    assert of_pilot({"a": ends}, {}, range(3)).deviations == {}


def test_what_varies_by_rounding_alone_is_correlated_with_nothing():
    values = np.array([[1.0, 1.0 + 2e-16, 1.0, 1.0], [1.0, 2.0, 4.0, 3.0], [1.0, 2.0, 4.0, 3.0]])
    # The squares are 1, of which 1 / 3 is what independent rows show.
    np.testing.assert_allclose(shrunk(values), [[1, 0, 0], [0, 1, 2 / 3], [0, 2 / 3, 1]])
    np.testing.assert_array_equal(shrunk(values[:2]), np.eye(2))


def test_rows_without_any_correlation_are_left_as_they_are():
    np.testing.assert_array_equal(shrunk(np.array([[1.0, 0, -1], [1, -2, 1]])), np.eye(2))
