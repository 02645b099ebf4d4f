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


def test_the_p_of_equivalence_is_the_alpha_at_which_its_interval_touches_the_margin():
    first, second = [True] * 2 + [False] * 10, [False] * 12
    found = summarise_outcomes(first, second, alpha=0.05, margin=0.6)
    p = found.p_equivalence
    more, less = clopper_pearson(2, 12, p), clopper_pearson(0, 12, p)
    assert more[1] - less[0] == pytest.approx(0.6, abs=1e-9)
    other = summarise_outcomes(second, first, alpha=0.05, margin=0.6)
    assert other.p_equivalence == pytest.approx(p)
    alone = summarise_outcomes(first, None, alpha=0.05, margin=0.6)
    assert clopper_pearson(2, 12, 2 * alone.p_equivalence)[1] == pytest.approx(0.6, abs=1e-9)


def test_shares_that_differ_by_the_margin_are_not_equivalent():
    first, second = [True] * 4 + [False] * 4, [False] * 8
    assert summarise_outcomes(first, second, alpha=0.05, margin=0.5).p_equivalence == 1.0
    alike = summarise_outcomes(second, second, alpha=0.05, margin=1.5)
    assert alike.p_equivalence == 0.5**8


def test_one_seed_and_one_trial_have_the_statistics_of_any_difference():
    one = summarise_outcomes([True], [False], alpha=0.05, margin=0.5)
    assert (one.mean, one.p, one.interval) == (1.0, None, None)
    two = summarise_outcomes([True] * 2, [False] * 2, alpha=0.05, margin=0.5)
    assert (two.p, two.interval_inversion, two.p_equivalence_signflip) == (0.5, None, None)
    same = summarise_outcomes([True] * 8, [True] * 8, alpha=0.05, margin=0.1, same_trial=True)
    assert (same.p_equivalence, same.interval) == (0.0, (0.0, 0.0))


def test_what_the_test_rejects_is_no_part_of_the_interval():
    for first, second in (([True] * 6, [False] * 6), ([False] * 6, [True] * 6)):
        found = summarise_outcomes(first, second, alpha=2 / 2**6, margin=0.5)
        assert found.p == 2 / 2**6
        low, high = found.interval
        assert low >= 0.0 or high <= 0.0
        plain = summarise_outcomes(first, second, alpha=2 / 2**6 - 1e-9, margin=0.5)
        assert plain.interval[0] < 0.0 < plain.interval[1]


def test_a_control_of_two_arms_is_compared_as_two_where_the_hypothesis_has_one():
    endings = {"arm": "f" * 8, "baseline": "c" * 8, "bad": "c" * 8, "fine": "f" * 8}
    one = {"contrast": ("arm",), "direction": "holds", "smallest_effect": 0.7}
    alike = judged(endings, control=("bad", "baseline"), **one)
    assert (alike.control.found, alike.control.mean) == ("alike", 0.0)
    assert alike.label == "insensitive"
    differs = judged(endings, control=("bad", "fine"), **one)
    assert (differs.control.found, differs.control.mean) == ("differs", 1.0)
    assert differs.label == "supported"
    alone = judged(endings, control="bad", **one)
    assert (alone.control.found, alone.control.mean, alone.label) == ("differs", 1.0, "supported")


@pytest.mark.parametrize("control", [{"x": 0.5, "y": 0.5}, {"x": 0.5}, {"x": 1, "y": -0.5}])
def test_a_control_of_an_end_is_an_arm_or_two(control):
    with pytest.raises(ValidationError, match=r"control of an endpoint must be an arm, \[arm\]"):
        hypothesis(control=control)
