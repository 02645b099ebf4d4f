"""How a run ended as an end point: a predicted collapse is a result."""

import itertools

import numpy as np
import pytest
import scipy.stats
from pydantic import ValidationError

from ablations.spec import Gate, Hypothesis
from ablations.statistics.outcomes import summarise_outcomes
from ablations.statistics.proportions import clopper_pearson, fisher_p, mcnemar_p
from ablations.statistics.sign_flip import signflip_p
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import judge
from ablations.verdicts.planning import fewest_seeds, least_p


def hypothesis(**change):
    given = {
        "endpoint": "collapsed",
        "contrast": ("arm", "baseline"),
        "direction": "rises",
        "smallest_effect": 0.5,
    }
    return Hypothesis(**(given | change))


def runs_that(endings):
    """Runs of arms that ended so, from {arm: letters by seed}: c, d, f for finished, x missing."""
    words = {"c": "collapsed", "d": "diverged", "f": "finished", "x": "missing"}
    return {
        (arm, seed): Run(status=words[letter], start={}, end={})
        for arm, letters in endings.items()
        for seed, letter in enumerate(letters)
    }


def judged(endings, gates=(), **change):
    runs = runs_that(endings)
    seeds = range(len(endings["arm"]))
    return judge({"h": hypothesis(**change)}, dict(gates), runs, seeds)["h"]


@pytest.mark.parametrize("n", [6, 8])
def test_a_predicted_collapse_is_supported(n):
    found = judged({"arm": "c" * n, "baseline": "f" * n})
    assert found.label == "supported"
    assert found.p == pytest.approx(2 / 2**n)
    assert (found.mean, found.n) == (1.0, n)
    assert "rises by 1" in found.reason


def test_a_predicted_collapse_that_does_not_come_is_refuted_or_equivalent_by_its_control():
    endings = {"arm": "f" * 8, "baseline": "f" * 8, "bad": "c" * 8}
    assert judged(endings).label == "refuted"
    assert judged(endings, control="bad").label == "equivalent"
    assert judged(endings, control="bad", direction="holds").label == "supported"
    assert judged({"arm": "f" * 8, "baseline": "f" * 8}).label == "insensitive"


def test_eight_runs_without_a_collapse_exclude_no_chance_below_the_exact_limit():
    endings = {"arm": "f" * 8, "baseline": "f" * 8, "bad": "c" * 8}
    limit = 1 - 0.025 ** (1 / 8)
    assert round(clopper_pearson(0, 8, 0.05)[1], 3) == round(limit, 3) == 0.369
    for s, label in ((limit + 0.01, "supported"), (limit - 0.01, "inconclusive")):
        found = judged(endings, control="bad", direction="holds", smallest_effect=s)
        assert found.label == label
    assert found.interval_equivalence == pytest.approx((-limit, limit))
    assert found.p_equivalence > 0.05


def test_an_arm_that_diverged_did_not_collapse_and_did_not_finish():
    endings = {"arm": "d" * 8, "baseline": "f" * 8}
    assert judged(endings, endpoint="diverged").label == "supported"
    assert judged(endings, endpoint="finished", direction="falls").label == "supported"
    assert judged(endings, endpoint="collapsed").mean == 0


def test_a_missing_run_is_no_answer():
    found = judged({"arm": "ccccccxc", "baseline": "f" * 8})
    assert (found.label, found.reason) == ("failed", "arm: missing, seed 6")


def test_no_gate_makes_a_collapse_failed():
    gate = Gate(arms=("arm", "baseline"), metric="knn/cls_top1", at_least=0.5)
    assert judged({"arm": "c" * 8, "baseline": "f" * 8}, {"g": gate}).label == "supported"


def test_the_share_of_one_arm_has_the_interval_of_clopper_and_pearson():
    found = judged({"arm": "cccccccf"}, contrast=("arm",))
    assert found.interval == pytest.approx(clopper_pearson(7, 8, 0.05))
    assert found.mean == 7 / 8


def test_five_of_eight_is_shown_without_pairs_and_not_with_them():
    endings = {"arm": "cccccfff", "baseline": "f" * 8}
    paired = judged(endings)
    assert (paired.p, paired.label) == (0.0625, "inconclusive")
    apart = judged(endings, paired=False)
    assert round(apart.p, 4) == 0.0256 == round(fisher_p(5, 8, 0, 8), 4)
    assert apart.label == "supported"


def every_outcome(n):
    """All ways in which n pairs can end, but for the order of seeds."""
    kinds = [(True, True), (True, False), (False, True), (False, False)]
    return itertools.combinations_with_replacement(kinds, n)


def test_mcnemars_p_is_that_of_sign_flips_and_agrees_with_the_interval():
    for pairs in every_outcome(6):
        first, second = zip(*pairs, strict=True)
        found = summarise_outcomes(first, second, alpha=0.05, margin=0.5)
        d = [float(a) - float(b) for a, b in pairs]
        assert found.p == pytest.approx(float(signflip_p(np.array(d))))
        assert found.p == mcnemar_p(d.count(1.0), d.count(-1.0))
        low, high = found.interval
        assert low <= found.mean <= high
        if found.p <= 0.05:
            assert low >= 0 or high <= 0
        low, high = found.interval_equivalence
        assert found.p_equivalence >= 2**-6
        if found.p_equivalence <= 0.05:
            assert -0.5 < low <= high < 0.5


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("a", "b"), [(0.0, 0.5), (0.1, 0.1), (0.3, 0.9)])
def test_the_interval_covers_the_difference_of_chances_as_often_as_it_says(a, b, paired):
    n, covered = 5, 0.0
    chances = [
        scipy.stats.binom.pmf(k, n, a) * scipy.stats.binom.pmf(m, n, b)
        for k in range(n + 1)
        for m in range(n + 1)
    ]
    assert sum(chances) == pytest.approx(1)
    for k, m in itertools.product(range(n + 1), repeat=2):
        for overlap in range(max(0, k + m - n), min(k, m) + 1):
            # Independent arms: hypergeometric overlap of which seeds it happened at.
            weight = scipy.stats.hypergeom.pmf(overlap, n, k, m)
            first = [True] * k + [False] * (n - k)
            second = [True] * overlap + [False] * (k - overlap)
            second += [True] * (m - overlap)
            second += [False] * (n - len(second))
            found = summarise_outcomes(first, second, alpha=0.05, margin=0.5, paired=paired)
            low, high = found.interval
            if low <= a - b <= high:
                chance = scipy.stats.binom.pmf(k, n, a) * scipy.stats.binom.pmf(m, n, b)
                covered += chance * weight
    assert covered >= 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "knn/cls_top1"}, "leave metric out"),
        ({"minus_start": True}, "leave minus_start out"),
        ({"test": "t"}, "leave test: t out"),
        ({"contrast": {"arm": 1.0}}, "endpoint needs a contrast"),
        ({"over": "cells"}, "endpoint needs a contrast"),
        ({"contrast": ("arm",), "paired": False}, "needs a contrast of two arms"),
        ({"endpoint": "", "metric": "knn/cls_top1", "paired": False}, "paired: false is of an"),
        ({"endpoint": ""}, "metric is missing"),
        ({"endpoint": "crashed"}, "collapsed"),
    ],
)
def test_what_is_no_yes_no_end_point_is_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        hypothesis(**change)


@pytest.mark.parametrize("direction", ["rises", "holds"])
def test_runs_that_all_end_alike_say_nothing_of_how_many_seeds_are_needed(direction):
    endings = {"arm": "f" * 8, "baseline": "f" * 8, "bad": "c" * 8}
    found = judged(endings, control="bad", direction=direction, smallest_effect=0.25)
    assert found.label == "inconclusive"
    assert found.seeds_needed is None
    assert "needed" not in found.reason


@pytest.mark.parametrize(("n", "s"), [(6, 0.25), (8, 0.5), (8, 0.9)])
@pytest.mark.parametrize("contrast", [("arm",), ("arm", "baseline")])
def test_no_endings_have_a_p_of_equivalence_below_the_least(n, s, contrast):
    one = hypothesis(direction="holds", smallest_effect=s, contrast=contrast)
    found = [
        judged(
            {"arm": "c" * i + "f" * (n - i), "baseline": "c" * j + "f" * (n - j)},
            direction="holds",
            smallest_effect=s,
            contrast=contrast,
        ).p_equivalence
        for i in range(n + 1)
        for j in (0, n)
    ]
    assert min(found) == pytest.approx(least_p(one, n), rel=1e-6)


def test_equal_endings_need_more_seeds_than_equal_values():
    one = hypothesis(direction="holds", smallest_effect=0.25)
    fewest = fewest_seeds(one)
    assert fewest == 13
    assert least_p(one, fewest) <= 0.05 < least_p(one, fewest - 1)
