"""Looks of simulated studies, against what the judge sees at a look of each of them."""

import numpy as np
import pytest

from ablations.design import Design as Looks
from ablations.spec import Hypothesis
from ablations.statistics.flips import signs
from ablations.verdicts.at_look import at_look
from ablations.verdicts.evidence import Run
from ablations.verdicts.rule import is_small, signed
from ablations.verdicts.simulated_looks import test_of as looked_at

LEVELS = np.array([0.2 / k for k in range(1, 9)])
"""Descending; nothing above the first is looked at."""


def hypothesis(direction, s, **change):
    given = {"metric": "m", "contrast": ("a", "baseline"), "alpha": 0.2}
    return Hypothesis(**{**given, "direction": direction, "smallest_effect": s, **change})


def judged(one, design, differences, n):
    """What the judge sees of the first n seeds of a study with these differences."""

    def run(value):
        if one.endpoint:
            return Run(status="collapsed" if value > 0 else "finished", start={}, end={})
        return Run(status="finished", start={}, end={"m": float(value)})

    runs = {("a", seed): run(value) for seed, value in enumerate(differences)}
    # What ends so in the other arm only is a difference of -1.
    other = -differences if one.endpoint else 0 * differences
    runs |= {("baseline", seed): run(value) for seed, value in enumerate(other)}
    return at_look(one, runs, tuple(range(n)), design, inverted=False)


def least_level(p):
    """The p of a boundary that is looked at for some levels only."""
    return min((level for level in LEVELS if p <= level), default=1.0)


def check(one, design, differences):
    """At each look, all of it is what the judge sees of each study alone."""
    test = looked_at(one, design, differences, LEVELS, signs(differences.shape[1]))
    rows = np.arange(len(differences))
    exact = design.spending == "e-process"
    for number, n in enumerate(design.looks):
        p = test.p_equivalence(number, rows) if one.direction == "holds" else test.p(number, rows)
        seen = test.seen(number, rows)
        for i, values in enumerate(differences):
            found = judged(one, design, values, n)
            summary, s = found.summary, one.smallest_effect
            told = summary.p_equivalence if one.direction == "holds" else summary.p
            assert p[i] == pytest.approx(told if exact else least_level(told), rel=1e-6)
            interval, alpha = summary.interval, one.alpha
            effect, (low, high) = signed(one.direction, summary.mean, interval)
            small = is_small(s, alpha, summary.interval_equivalence, summary.p_equivalence)
            outside = interval[0] >= s or interval[1] <= -s
            assert [bool(flag[i]) for flag in seen[:5]] == [
                effect >= s, low >= 0, high < s, outside, small
            ]  # fmt: skip
            assert seen.shows == (bool(one.endpoint) or found.least_p <= alpha)


VALUES = [
    hypothesis("rises", 0.8),
    hypothesis("rises", 0.8, test="t"),
    hypothesis("falls", 0.4),
    hypothesis("differs", 0.6),
    hypothesis("differs", 0.6, test="t"),
    hypothesis("holds", 0.9),
]


def drawn(k, n):
    """Differences of k studies, with effects from -1.2 to 1.5."""
    rng = np.random.default_rng(3)
    return np.linspace(-1.2, 1.5, k)[:, None] + 0.5 * rng.standard_normal((k, n))


@pytest.mark.parametrize("one", VALUES, ids=lambda one: f"{one.direction}-{one.test}")
@pytest.mark.parametrize("spending", ["obf", "pocock"])
def test_values_are_seen_as_the_judge_sees_them(one, spending):
    check(one, Looks(looks=(3, 5, 7), spending=spending), drawn(7, 7))


@pytest.mark.parametrize("spending", ["pocock", "e-process"])
@pytest.mark.parametrize("direction", ["rises", "falls", "differs", "holds"])
def test_means_of_exactly_0_or_the_smallest_effect_are_seen_as_the_judge_sees_them(
    direction, spending
):
    # Intervals of equal differences are their mean, of the others they are around it.
    equal = np.array([0.0, 0.5, -0.5])[:, None] * np.ones(6)
    around = equal + 0.25 * np.array([1, -1, 1, -1, 1, -1])
    one = hypothesis(direction, 0.5)
    # Simulated bets are on shifts of s, 0 and -s only, which equal differences lie on.
    rows = around if spending == "e-process" else np.concatenate([equal, around])
    check(one, Looks(looks=(4, 6), spending=spending), rows)


@pytest.mark.parametrize("spending", ["obf", "pocock"])
def test_signs_cross_at_exactly_the_share_of_patterns_that_are_as_extreme(spending):
    # At one look, of all 32 patterns: that of equal differences alone, and two more at worst.
    d = np.array([[1.0] * 6, [1.0, 2.0, 4.0, 8.0, 16.0, -32.0], [-1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    levels = np.array([7 / 32, 6 / 32, 1 / 32])
    test = looked_at(hypothesis("rises", 0.5), Looks(looks=(6,), spending=spending), d, levels,
                     signs(6))  # fmt: skip
    assert test.p(0, np.arange(3)) == pytest.approx([1 / 32, 1.0, 7 / 32])


@pytest.mark.parametrize("direction", ["rises", "falls", "differs", "holds"])
def test_bets_are_seen_as_the_judge_sees_them(direction):
    check(hypothesis(direction, 0.7), Looks(looks=(5, 6, 7), spending="e-process"), drawn(7, 7))


@pytest.mark.parametrize("direction", ["rises", "falls", "differs", "holds"])
@pytest.mark.parametrize("paired", [True, False])
def test_endings_are_seen_as_the_judge_sees_them(direction, paired):
    check_endings(hypothesis(direction, 0.6, metric="", endpoint="collapsed", paired=paired))


def test_endings_of_one_arm_are_seen_as_the_judge_sees_them():
    check_endings(hypothesis("rises", 0.6, metric="", endpoint="collapsed", contrast=("a",)))


def check_endings(one):
    happens = np.arange(6) < np.array([0, 2, 4, 5, 6])[:, None]
    sign = -1 if one.direction == "falls" else 1
    check(one, Looks(looks=(4, 6), spending="pocock"), sign * happens.astype(float))
