"""p-values and intervals of sequential designs, against the tests that they invert."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from ablations.statistics.e_process import anytime_p
from ablations.statistics.sequential_p import (
    LEAST,
    confidence_sequence,
    fewest_for_e_process,
    level,
    nominal_p,
    one_sided_level,
    one_sided_nominal_p,
    sign_flip_p,
)
from ablations.statistics.sign_flip import signflip_p
from ablations.statistics.spending import RankedSigns, boundaries, sign_flip_look

LOOKS = (6, 8, 10)


def drawn(seed, n, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 1, n)


@pytest.mark.parametrize("kind", ["obf", "pocock"])
def test_a_level_is_the_tail_beyond_its_boundary(kind):
    z = boundaries((0.6, 0.8, 1.0), 0.05, kind)
    found = [level(LOOKS, number, 0.05, kind) for number in range(3)]
    assert found == pytest.approx(2 * scipy.stats.norm.sf(z), rel=1e-6)
    both = boundaries((0.6, 0.8, 1.0), 0.1, kind)
    assert one_sided_level(LOOKS, 1, 0.05, kind) == pytest.approx(scipy.stats.norm.sf(both[1]))


@pytest.mark.parametrize("kind", ["obf", "pocock"])
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("alpha", [0.001, 0.012, 0.05, 0.2])
def test_the_p_of_a_nominal_p_is_the_alpha_at_which_it_just_crosses(kind, number, alpha):
    found = nominal_p(level(LOOKS, number, alpha, kind), LOOKS, number, kind)
    assert found == pytest.approx(alpha, rel=1e-3)


def test_with_one_look_a_p_is_itself():
    for seed in range(5):
        d = drawn(seed, 8, 1.0)
        p = float(signflip_p(d))
        assert sign_flip_p(d, (8,), "obf") == (pytest.approx(p, rel=1e-3) if p < 0.45 else 1.0)
        assert nominal_p(0.03, (8,), 0, "pocock") == pytest.approx(0.03, rel=1e-3)
    assert nominal_p(0.95, (8,), 0, "obf") == 1.0


@pytest.mark.parametrize("kind", ["obf", "pocock"])
@pytest.mark.parametrize("seed", range(4))
def test_sign_flips_cross_at_their_p_and_not_below(kind, seed):
    d = drawn(seed, 10, 1.2)
    p = sign_flip_p(d, LOOKS, kind)
    assert LEAST <= p < 1
    assert sign_flip_look(d, LOOKS, p, kind)[0]
    assert not sign_flip_look(d, LOOKS, p * 0.999, kind)[0]


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_over_all_signs_the_p_of_any_look_is_alpha_at_most_as_often_as_alpha(alpha):
    sizes, looks = np.abs(drawn(0, 6)), (4, 6)
    crossed = 0
    for signs in itertools.product((1, -1), repeat=6):
        d = sizes * signs
        ps = [sign_flip_p(d[:look], looks, "pocock") for look in looks]
        crossed += min(ps) <= alpha
    assert crossed <= alpha * 2**6


def test_of_all_signs_no_more_than_alpha_have_a_p_of_alpha_or_less_at_any_look():
    # At a smaller alpha nothing is spent at 6 seeds, and more is left for 8 and 10. Levels that
    # cross on their own, one here and one there, would add up to .0527 of these patterns.
    sizes = np.abs(drawn(0, 10))
    found = [
        min(sign_flip_p((sizes * signs)[:look], LOOKS, "obf") for look in LOOKS)
        for signs in itertools.product((1, -1), repeat=9)
        for signs in [np.array((*signs, 1))]
    ]
    for share in (1, 2, 3):
        assert np.mean(np.array(found) <= 0.05 / share) <= 0.05 / share


def test_signs_ranked_once_cross_as_those_of_each_look():
    rng = np.random.default_rng(0)
    for kind, looks in itertools.product(("obf", "pocock"), (LOOKS, (4, 6), (8,))):
        for n in looks:
            d = rng.normal(rng.normal(), 1, n).round(1)
            for alpha in (0.01, 0.05, 0.3):
                crossed = sign_flip_look(d, looks, alpha, kind)[0]
                assert RankedSigns(d, looks, kind).crosses(alpha) == crossed


def test_a_confidence_sequence_holds_the_shifts_that_no_seed_rejected():
    d = drawn(1, 12, 0.5)
    low, high = confidence_sequence(d, 0.05)
    step = 0.01 * (high - low)
    assert anytime_p(d - (low + step)) > 0.05 >= anytime_p(d - (low - step))
    assert anytime_p(d - (high - step)) > 0.05 >= anytime_p(d - (high + step))
    assert low < d.mean() < high


def test_more_alpha_makes_a_narrower_confidence_sequence():
    d = drawn(2, 12)
    (low, high), (inner_low, inner_high) = (confidence_sequence(d, a) for a in (0.05, 0.1))
    assert low < inner_low < inner_high < high


def test_an_e_process_can_decide_from_seven_seeds_on_and_says_nothing_before():
    assert (fewest_for_e_process(0.05), fewest_for_e_process(0.1)) == (7, 6)
    assert confidence_sequence(drawn(0, 6), 0.05) == (-math.inf, math.inf)
    assert confidence_sequence(np.full(7, 0.3), 0.05) == pytest.approx((0.3, 0.3))


def test_with_one_look_a_one_sided_p_is_itself_too_and_a_large_one_is_1():
    for p in (0.001, 0.03, 0.2):
        assert one_sided_nominal_p(p, (8,), 0, "obf") == pytest.approx(p, rel=1e-3)
    for p in (0.46, 0.7, 1.0):
        assert one_sided_nominal_p(p, (8,), 0, "obf") == 1.0


@pytest.mark.parametrize("kind", ["obf", "pocock"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_one_sided_p_is_half_of_that_of_twice_as_much(kind, number):
    p = one_sided_level(LOOKS, number, 0.04, kind)
    assert one_sided_nominal_p(p, LOOKS, number, kind) == pytest.approx(0.04, rel=1e-3)


def test_no_p_of_a_design_is_told_below_the_least():
    assert nominal_p(1e-12, (8,), 0, "obf") == pytest.approx(LEAST)
    assert nominal_p(0.0, (8,), 0, "pocock") == pytest.approx(LEAST)
    assert sign_flip_p(np.ones(40), (40,), "obf") == pytest.approx(1 / 65_537, rel=1e-3)


@pytest.mark.parametrize(("d", "p"), [((1, -2, -4, 8, 16), 7 / 16), ((-1, -2, -4, 8, 16), 1.0)])
def test_a_p_is_told_up_to_the_most_that_is_told_and_is_1_beyond(d, p):
    # Sums of 1, 2, 4, 8 and 16 with all signs are the odd numbers up to 31: 19 is the seventh, of
    # 16 without their signs, and 17 the eighth.
    assert sign_flip_p(np.array(d, dtype=float), (5,), "obf") == pytest.approx(p, rel=1e-3)


def test_no_difference_never_crosses():
    assert sign_flip_p(np.zeros(8), (8,), "pocock") == 1.0


def test_a_confidence_sequence_moves_with_the_differences_and_their_unit():
    d = drawn(3, 9)
    low, high = confidence_sequence(d, 0.1)
    assert confidence_sequence(1e-7 * (d + 2), 0.1) == pytest.approx(
        (1e-7 * (low + 2), 1e-7 * (high + 2))
    )
    assert confidence_sequence(-d, 0.1) == pytest.approx((-high, -low))


@pytest.mark.parametrize(
    ("d", "alpha"),
    [(drawn(4, 12), 0.05), (drawn(4, 8), 0.05), (np.arange(7) > 0, 0.0325)],
)
def test_ends_of_a_confidence_sequence_are_the_outermost_shifts_by_a_small_step(d, alpha):
    # The last, whose e-value is 31.2 at most, rejects only what is many of its ranges away.
    d = 1.0 * d
    low, high = confidence_sequence(d, alpha)
    for end, inwards in ((low, 1), (high, -1)):
        step = inwards * max(abs(end - d.mean()), np.ptp(d))
        shifts = end + step * np.array([0.0, 0.002])
        assert (anytime_p(d - shifts[:, None]) > alpha).tolist() == [False, True]
    assert low < d.mean() < high
