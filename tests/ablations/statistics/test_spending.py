"""Boundaries against published constants and multivariate normal tails; flips against counting."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from scipy.optimize import brentq

from ablations.statistics.sign_flip import signflip_p
from ablations.statistics.spending import (
    RankedSigns,
    Walk,
    boundaries,
    sign_flip_look,
    spent,
)

THIRDS = (1 / 3, 2 / 3, 1.0)
FROM_HALF = (1 / 2, 3 / 4, 1.0)


def classical_boundaries(looks, alpha, kind):
    """Critical |z| of equally spaced looks by Pocock (1977) or O'Brien & Fleming (1979)."""
    fractions = np.arange(1, looks + 1) / looks
    shape = np.ones(looks) if kind == "pocock" else 1 / np.sqrt(fractions)

    def excess(constant):
        walk = Walk()
        for fraction, z in zip(fractions, constant * shape, strict=True):
            walk.look(fraction, z)
        return walk.crossed - alpha

    return tuple(brentq(excess, 0.0, 8 / shape[0]) * shape)


def crossing_chance(fractions, z):
    """Chance that normal sums cross |z| at any look, from their joint distribution."""
    t = np.array(fractions)
    correlation = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    inside = scipy.stats.multivariate_normal(cov=correlation, abseps=1e-7, releps=1e-7, seed=0)
    return 1 - inside.cdf(np.array(z), lower_limit=-np.array(z))


class TestBoundaries:
    @pytest.mark.parametrize(
        ("kind", "looks", "constant"),
        [
            *zip(["pocock"] * 4, (2, 3, 4, 5), (2.178, 2.289, 2.361, 2.413), strict=True),
            *zip(["obf"] * 4, (2, 3, 4, 5), (1.977, 2.004, 2.024, 2.040), strict=True),
        ],
    )
    def test_classical_constants_are_those_of_the_tables(self, kind, looks, constant):
        assert round(classical_boundaries(looks, 0.05, kind)[-1], 3) == constant

    def test_pococks_are_equal_and_obriens_fall_with_the_root_of_the_seeds(self):
        assert len(set(classical_boundaries(4, 0.1, "pocock"))) == 1
        first, *_, last = classical_boundaries(4, 0.1, "obf")
        assert first == pytest.approx(2 * last)

    @pytest.mark.parametrize(
        ("kind", "fractions", "z"),
        [
            ("obf", THIRDS, (3.7103, 2.5114, 1.9930)),
            ("obf", FROM_HALF, (2.9626, 2.3590, 2.0141)),
            ("pocock", THIRDS, (2.2794, 2.2949, 2.2959)),
        ],
    )
    def test_spending_boundaries_are_those_of_the_tables(self, kind, fractions, z):
        assert tuple(round(one, 4) for one in boundaries(fractions, 0.05, kind)) == z

    @pytest.mark.parametrize("kind", ["obf", "pocock"])
    @pytest.mark.parametrize("fractions", [(0.5, 1.0), FROM_HALF, (0.4, 0.55, 0.7, 0.9)])
    def test_the_chance_to_cross_by_each_look_is_what_may_be_spent(self, kind, fractions):
        z = boundaries(fractions, 0.1, kind)
        for looks in range(1, len(z) + 1):
            expected = spent(fractions[looks - 1], 0.1, kind)
            assert crossing_chance(fractions[:looks], z[:looks]) == pytest.approx(
                expected, abs=2e-5
            )

    @pytest.mark.parametrize("kind", ["obf", "pocock"])
    def test_all_is_spent_at_the_end_and_more_and_more_before(self, kind):
        course = [spent(fraction, 0.05, kind) for fraction in (0.1, 0.3, 0.6, 1.0)]
        assert course[-1] == pytest.approx(0.05)
        assert course == sorted(course)
        assert spent(0.5, 0.05, kind) == pytest.approx({"obf": 0.0031, "pocock": 0.031}[kind], 0.02)

    @pytest.mark.parametrize("kind", ["obf", "pocock"])
    def test_one_look_at_the_end_is_the_test_without_looks(self, kind):
        normal = scipy.stats.norm.isf(0.025)
        assert boundaries((1.0,), 0.05, kind) == pytest.approx((normal,))
        assert classical_boundaries(1, 0.05, kind) == pytest.approx((normal,))

    def test_looks_with_nothing_to_spend_have_a_boundary_that_nothing_crosses(self):
        first, _, last = boundaries((0.01, 0.25, 1.0), 1e-6, "obf")
        assert first == 37
        assert last == pytest.approx(scipy.stats.norm.isf(5e-7), abs=0.01)

    @pytest.mark.parametrize("fractions", [(), (0.5, 0.5, 1.0), (0.8, 0.4), (0.0, 1.0), (0.5, 1.1)])
    def test_looks_must_ascend_to_1_at_most(self, fractions):
        with pytest.raises(ValueError, match="ascend"):
            boundaries(fractions, 0.05, "obf")


def rejected_patterns(sizes, looks, alpha, kind):
    """Look at which each pattern of signs is rejected, by counting whole patterns (0: never)."""
    n = looks[-1]
    rejected = dict.fromkeys(itertools.product((1, -1), repeat=n), 0)
    for number, look in enumerate(looks, start=1):
        sums = {one: round(abs(np.dot(one[:look], sizes[:look])), 9) for one in rejected}
        most = spent(look / n, alpha, kind) * 2**n
        for value in sorted(set(sums.values()), reverse=True):
            tied = [one for one in sums if sums[one] == value and not rejected[one]]
            if sum(map(bool, rejected.values())) + len(tied) > most:
                break
            rejected.update(dict.fromkeys(tied, number))
    return rejected


class TestSignFlips:
    @pytest.mark.parametrize("kind", ["obf", "pocock"])
    @pytest.mark.parametrize("ties", [False, True])
    def test_patterns_are_rejected_as_counting_says(self, kind, ties):
        looks, alpha = (5, 7, 9), 0.2
        sizes = np.abs(np.random.default_rng(0).standard_normal(9))
        if ties:
            sizes = np.ceil(sizes)
        expected = rejected_patterns(sizes, looks, alpha, kind)
        assert set(expected.values()) == ({0, 2, 3} if kind == "obf" else {0, 1, 2, 3})
        patterns = np.array(list(expected))
        for number, look in enumerate(looks, start=1):
            by_now = [0 < one <= number for one in expected.values()]
            crossed, _ = sign_flip_look((patterns * sizes)[:, :look], looks, alpha, kind)
            assert crossed.tolist() == by_now

    @pytest.mark.parametrize("kind", ["obf", "pocock"])
    def test_the_chance_to_reject_at_any_look_is_at_most_alpha(self, kind):
        sizes = np.abs(np.random.default_rng(1).standard_normal(10)) + 0.1
        patterns = np.array(list(itertools.product((1, -1), repeat=10)))
        crossed, _ = sign_flip_look(patterns * sizes, (6, 8, 10), 0.05, kind)
        assert 0.05 - 2 / 2**10 < crossed.mean() <= 0.05

    def test_one_look_is_the_sign_flip_test(self):
        d = np.random.default_rng(2).standard_normal((200, 8)) + 0.8
        crossed, level = sign_flip_look(d, (8,), 0.05, "obf")
        p = signflip_p(d)
        assert set(crossed) == {True, False}
        assert (crossed == (p <= 0.05)).all()
        assert (crossed == (p <= level)).all()
        assert level == pytest.approx(6 / 128)

    @pytest.mark.parametrize("kind", ["obf", "pocock"])
    def test_an_alpha_that_flips_can_reach_exactly_is_spent_to_the_last(self, kind):
        for patterns in (505, 557, 1024):
            alpha = patterns / 2**15
            assert sign_flip_look(2.0 ** -np.arange(16), (16,), alpha, kind)[1] == alpha

    def test_what_has_crossed_stays_crossed_and_what_comes_later_does_not_matter(self):
        d = np.concatenate([np.linspace(1, 2, 8), -np.ones(8)])
        looks = (8, 12, 16)
        first, level = sign_flip_look(d[:8], looks, 0.05, "pocock")
        assert first
        assert level == 3 / 128
        assert signflip_p(d[:12]) > 0.05
        assert sign_flip_look(d[:12], looks, 0.05, "pocock")[0]
        assert sign_flip_look(d, looks, 0.05, "pocock")[0]

    def test_spending_like_obrien_and_fleming_cannot_stop_at_half_of_sixteen(self):
        crossed, level = sign_flip_look(np.ones(8), (8, 12, 16), 0.05, "obf")
        assert spent(0.5, 0.05, "obf") < 2 / 2**8
        assert (bool(crossed), float(level)) == (False, 0.0)

    @pytest.mark.parametrize(
        ("kind", "power", "mean_n"), [("obf", 0.95, 13.0), ("pocock", 0.905, 11.0)]
    )
    def test_power_and_mean_seeds_are_those_of_an_independent_simulation(self, kind, power, mean_n):
        looks = (8, 12, 16)
        d = np.random.default_rng(3).standard_normal((300, 16)) + 1
        first, second, last = (sign_flip_look(d[:, :n], looks, 0.05, kind)[0] for n in looks)
        stopped = np.where(first, 8, np.where(second, 12, 16))
        assert last.mean() == pytest.approx(power, abs=3 * math.sqrt(power * (1 - power) / 300))
        assert stopped.mean() == pytest.approx(mean_n, abs=3 * stopped.std() / math.sqrt(300))

    def test_beyond_sixteen_seeds_random_flips_stand_in(self):
        d = np.random.default_rng(4).standard_normal(20) + 0.9
        crossed, level = sign_flip_look(d, (10, 20), 0.05, "obf")
        assert crossed
        assert level == pytest.approx(0.048, abs=0.004)
        assert not sign_flip_look(d - d.mean(), (10, 20), 0.05, "obf")[0]

    def test_differences_of_zero_never_cross(self):
        assert not sign_flip_look(np.zeros((3, 12)), (8, 12), 0.05, "pocock")[0].any()

    def test_a_number_of_seeds_that_is_no_look_is_refused(self):
        with pytest.raises(ValueError, match=r"planned at \[8, 12\] seeds, got 10"):
            sign_flip_look(np.ones(10), (8, 12), 0.05, "obf")
        with pytest.raises(ValueError, match=r"planned at \[8, 12\] seeds, got 10"):
            RankedSigns(np.ones(10), (8, 12), "obf")

    @pytest.mark.parametrize("looks", [(12, 8), (8, 8), (0, 8)])
    def test_looks_must_ascend(self, looks):
        with pytest.raises(ValueError, match="ascend"):
            sign_flip_look(np.ones(8), looks, 0.05, "obf")
        with pytest.raises(ValueError, match="ascend"):
            RankedSigns(np.ones(8), looks, "obf")
