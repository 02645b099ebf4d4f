"""Step-down max-T against its definition, one flip and one test at a time."""

import itertools
import math
import time

import numpy as np
import pytest
import scipy.stats

from ablations.statistics.flips import EXACT_SEEDS, SIGN_FLIPS, signs
from ablations.statistics.max_t import step_down_p
from ablations.statistics.sign_flip import signflip_p


def studentised(d):
    """|t| of one sample, by its equation."""
    return abs(d.mean()) / (d.std(ddof=1) / math.sqrt(len(d)))


def westfall_young(differences):
    """Adjusted p of each row: Westfall & Young (1993), algorithm 4.1, over all joint flips."""
    observed = [studentised(row) for row in differences]
    ranked = sorted(range(len(observed)), key=lambda row: -observed[row])
    flips = list(itertools.product((1, -1), repeat=differences.shape[1]))
    adjusted, least = {}, 0.0
    for place, row in enumerate(ranked):
        left = ranked[place:]
        as_large = [
            max(studentised(differences[other] * flip) for other in left) >= observed[row] - 1e-9
            for flip in flips
        ]
        least = max(least, sum(as_large) / len(flips))
        adjusted[row] = least
    return [adjusted[row] for row in range(len(observed))]


def correlated(rng, studies, m, n, correlation):
    """Normal differences of variance 1, any two of the m with this correlation."""
    shared = rng.standard_normal((studies, 1, n))
    own = rng.standard_normal((studies, m, n))
    return math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own


@pytest.mark.parametrize(("m", "n"), [(1, 5), (2, 6), (4, 6), (3, 7)])
def test_p_is_that_of_westfall_and_young(m, n):
    rng = np.random.default_rng(10 * m + n)
    for shift in (0.0, 0.8):
        d = rng.standard_normal((m, n)) + shift * np.arange(m)[:, None]
        assert step_down_p(d) == pytest.approx(westfall_young(d), abs=1e-12)


@pytest.mark.parametrize("n", [2, 6, 8, 11])
def test_one_test_has_the_p_of_scipys_permutation_test(n):
    d = np.random.default_rng(n).standard_normal(n) + 0.4
    exact = scipy.stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert step_down_p(d[None]) == pytest.approx([exact.pvalue], abs=1e-12)
    assert step_down_p(d[None]) == signflip_p(d)


def test_rows_that_are_there_twice_cost_nothing():
    rng = np.random.default_rng(3)
    d = rng.standard_normal((3, 8)) + 0.6
    twice = step_down_p(np.concatenate([d, d, d[:1]]))
    assert twice.tolist() == [*step_down_p(d), *step_down_p(d), step_down_p(d)[0]]


def test_units_and_signs_of_rows_do_not_matter():
    d = np.random.default_rng(4).standard_normal((4, 9)) + 0.5
    units = np.array([1e-300, -1e6, 3.0, 1e300])[:, None]
    assert step_down_p(d * units) == pytest.approx(step_down_p(d), abs=1e-12)


def test_order_of_rows_and_of_seeds_does_not_matter():
    rng = np.random.default_rng(5)
    d = rng.standard_normal((5, 8)) + 0.5
    rows, seeds = rng.permutation(5), rng.permutation(8)
    assert step_down_p(d[rows][:, seeds]) == pytest.approx(step_down_p(d)[rows], abs=1e-12)


def test_rows_of_zeros_have_p_1_and_cost_nothing():
    d = np.random.default_rng(6).standard_normal((2, 8)) + 1
    with_zeros = step_down_p(np.stack([np.zeros(8), d[0], np.zeros(8), d[1]]))
    assert with_zeros.tolist() == [1.0, step_down_p(d)[0], 1.0, step_down_p(d)[1]]


def test_adjusted_p_is_at_least_its_own_and_never_falls_with_the_statistic():
    d = np.random.default_rng(7).standard_normal((50, 6, 8)) + 0.7
    own, adjusted = signflip_p(d), step_down_p(d)
    assert (adjusted >= own - 1e-12).all()
    order = np.argsort(-np.abs(scipy.stats.ttest_1samp(d, 0, axis=-1).statistic), axis=-1)
    steps = np.take_along_axis(adjusted, order, axis=-1)
    assert (np.diff(steps, axis=-1) >= -1e-12).all()


@pytest.mark.parametrize("n", [5, 6, 8])
def test_least_p_is_two_over_two_to_the_n(n):
    d = np.stack([np.ones(n), np.eye(n)[0]])
    assert step_down_p(d)[0] == 2 / 2**n


def test_studies_are_adjusted_apart_whatever_the_batch():
    d = np.random.default_rng(8).standard_normal((3, 2, 4, 14)) + 0.4
    alone = [[step_down_p(study) for study in pair] for pair in d]
    assert step_down_p(d) == pytest.approx(np.array(alone), abs=1e-12)
    assert step_down_p(np.empty((0, 4, 8))).shape == (0, 4)


def test_beyond_sixteen_seeds_random_flips_come_near_enumeration_and_repeat():
    d = np.random.default_rng(9).standard_normal((2, 18)) + np.array([[0.45], [0.3]])
    rows = d / np.linalg.norm(d, axis=1, keepdims=True)
    sums = np.zeros((2, 1))
    for seed in rows.T:
        sums = np.concatenate([sums + seed[:, None], sums - seed[:, None]], axis=1)
    first = np.abs(rows.sum(axis=1)).argmax()
    share = np.mean(np.abs(sums).max(axis=0) >= abs(rows[first].sum()) - 1e-12)
    p = step_down_p(d)
    assert p[first] == pytest.approx(share, abs=3 * math.sqrt(share / SIGN_FLIPS))
    assert p.tolist() == step_down_p(d).tolist()
    assert step_down_p(np.ones((1, 40))) == 1 / (1 + SIGN_FLIPS)


@pytest.mark.parametrize("n", [1, 4, EXACT_SEEDS])
def test_flips_are_each_half_of_all_patterns_once(n):
    flips = signs(n)
    assert np.unique(flips, axis=0).shape == (2 ** (n - 1), n)
    assert (flips[0] == 1).all()
    assert (flips[:, -1] == 1).all()


@pytest.mark.parametrize("correlation", [0.3, 0.7])
def test_true_nulls_beside_false_ones_are_rejected_at_most_as_often_as_alpha(correlation):
    d = correlated(np.random.default_rng(11), 2_000, 5, 8, correlation)
    d[:, :2] += 1.5
    wrong = (step_down_p(d)[:, 2:] <= 0.05).any(axis=1).mean()
    assert 0.01 < wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2_000)


@pytest.mark.parametrize(("n", "power"), [(6, 0.295), (8, 0.71), (10, 0.89)])
def test_four_effects_of_eight_are_found_where_holm_finds_fewer(n, power):
    # Power of an independent simulation, at 1.5 standard deviations: Holm's is 0 at 8 seeds.
    d = correlated(np.random.default_rng(n), 2_000, 8, n, 0.5)
    d[:, :4] += 1.5
    found = step_down_p(d) <= 0.05
    assert found[:, :4].mean() == pytest.approx(power, abs=0.03)
    assert found[:, 4:].any(axis=1).mean() <= 0.05


def test_ten_thousand_studies_take_seconds():
    d = np.random.default_rng(13).standard_normal((10_000, 5, 8))
    began = time.process_time()
    step_down_p(d)
    assert time.process_time() - began < 10


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_no_number_is_refused(wrong):
    with pytest.raises(ValueError, match="finite"):
        step_down_p(np.array([[1.0, 2.0], [3.0, wrong]]))


def test_some_flips_give_the_share_of_them_that_is_as_large():
    d = np.random.default_rng(14).standard_normal((3, 8)) + 0.8
    some = signs(8)[:40]
    largest = [max(studentised(row * flip) for row in d) for flip in some]
    assert step_down_p(d, some).min() == np.mean(np.array(largest) >= largest[0] - 1e-9)
