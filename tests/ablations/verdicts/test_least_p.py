"""No label rests on less than its seeds can show: 2 / 2**n is the least p of n signs."""

import numpy as np
import pytest

from ablations.design import Design
from ablations.spec import Hypothesis
from ablations.statistics.sequential_p import level
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import judge
from ablations.verdicts.looks import follow

TINY = 1e-7 * np.array([1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7, 8, -8])


def hypothesis(**change):
    given = {
        "metric": "m",
        "contrast": ("arm", "baseline"),
        "direction": "rises",
        "smallest_effect": 1.0,
    }
    return Hypothesis(**(given | change))


def runs_of(differences, key=""):
    """Runs with these differences, and a control that differs; of one trial if they share a key."""
    return {
        (arm, seed): Run(status="finished", start={}, end={"m": float(value)}, key=of)
        for seed, difference in enumerate(differences)
        for arm, value, of in (
            ("arm", difference, key), ("baseline", 0.0, key), ("control", 9.0, "control"),
        )
    }  # fmt: skip


def judged(differences, key="", **change):
    runs = runs_of(differences, key)
    return judge({"h": hypothesis(**change)}, {}, runs, range(len(differences)))["h"]


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("test", ["signflip", "t"])
@pytest.mark.parametrize("n", [6, 8])
@pytest.mark.parametrize(
    ("truth", "label", "change"),
    [
        (-2.0, "refuted", {}),
        (0.5, "refuted", {}),
        (2.0, "refuted", {"direction": "holds"}),
        (-2.0, "refuted", {"direction": "holds"}),
    ],
)
def test_equal_differences_refute_from_the_alpha_on_that_so_many_signs_can_show(
    n, spread, test, truth, label, change
):
    least = 2 / 2**n
    d = truth + spread * TINY[:n]
    found = judged(d, alpha=least, test=test, **change)
    assert found.label == label
    below = judged(d, alpha=0.999 * least, test=test, **change)
    assert below.label == "inconclusive"
    assert f"but the least p of so many signs is {least:.2g}" in below.reason


@pytest.mark.parametrize("n", [6, 8])
def test_equal_differences_are_supported_and_strong_from_there_on(n):
    least, d = 2 / 2**n, np.full(n, 2.0)
    for test in ("signflip", "t"):
        assert judged(d, alpha=least, test=test).tags == ("strong",)
        assert judged(d, alpha=0.999 * least, test=test).label == "inconclusive"


def test_t_tests_of_few_seeds_support_below_it_and_are_not_strong():
    found = judged(2.0 + TINY[:6], alpha=0.01, test="t")
    assert (found.label, found.tags) == ("supported", ())
    assert judged(2.0 + TINY[:8], alpha=0.01, test="t").tags == ("strong",)


@pytest.mark.parametrize("n", [6, 8])
@pytest.mark.parametrize("direction", ["rises", "differs", "holds"])
def test_equal_differences_are_small_from_half_of_that_on_and_a_control_differs_from_it_on(
    n, direction
):
    least = 2 / 2**n
    label = "supported" if direction == "holds" else "equivalent"
    given = {"direction": direction, "control": "control", "smallest_effect": 0.1}
    for d in (np.zeros(n), np.full(n, 0.05), 0.05 + TINY[:n]):
        assert judged(d, alpha=least, **given).label == label
        assert judged(d, alpha=0.999 * least, **given).label == "insensitive"
        assert judged(d, alpha=least / 2, **given).label == "insensitive"
        below = judged(d, alpha=0.999 * least / 2, **given)
        assert (below.label, below.p_equivalence) == ("inconclusive", least / 2)


@pytest.mark.parametrize("n", [6, 8])
def test_equal_differences_are_opposite_and_negligible_by_the_least_p_of_signs(n):
    least, d = 2 / 2**n, np.full(n, -0.05)
    tags = ("negligible-but-nonzero", "opposite")
    given = {"control": "control", "smallest_effect": 0.1}
    assert judged(d, alpha=least, **given).tags == tags
    assert judged(d, alpha=0.999 * least, **given).tags == ()


def test_one_trial_under_two_names_needs_no_proof():
    assert judged(np.zeros(6), key="same", alpha=1e-3).label == "refuted"
    assert judged(np.zeros(6), alpha=1e-3).label == "inconclusive"


def test_how_runs_end_is_held_to_its_exact_interval_and_not_to_signs():
    runs = {
        (arm, seed): Run(status=status, start={}, end={})
        for arm, status in (("arm", "finished"), ("baseline", "finished"), ("other", "collapsed"))
        for seed in range(6)
    }
    one = hypothesis(metric="", endpoint="collapsed", smallest_effect=0.9, alpha=0.01)
    found = judge({"h": one}, {}, runs, range(6))["h"]
    assert found.interval[1] == pytest.approx(1 - 0.0025 ** (1 / 6))
    assert (found.label, found.p) == ("refuted", 1.0)


@pytest.mark.parametrize(("spending", "first"), [("obf", 12), ("pocock", 8), ("e-process", 7)])
def test_a_look_refutes_equal_differences_once_its_signs_can(spending, first):
    looks = tuple(range(7, 17)) if spending == "e-process" else (8, 12, 16)
    design = Design(looks=looks, spending=spending)
    for spread in (0.0, 1.0):
        runs = runs_of(-2.0 + spread * TINY)
        found = follow({"h": hypothesis()}, {}, runs, range(16), design)["h"]
        assert (found.verdict.label, len(found.wants)) == ("refuted", first)
    if spending != "e-process":
        levels = [level(looks, number, 0.05, spending) for number in range(3)]
        assert first == next(n for n, at in zip(looks, levels, strict=True) if 2 / 2**n <= at)
