"""Verdicts: every statistic against its definition, and every label against its rule.

Simulations have fixed seeds and must agree within three standard errors.

Over 400 lines: many small facts of one thing, which are looked for together.
"""

import itertools
import json
import math
import re

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.power import TTestPower

from ablations.spec import Gate, Hypothesis, Multiplicity
from ablations.statistics.power import seeds_for
from ablations.statistics.sign_flip import inversion_interval, signflip_p
from ablations.statistics.summary import summarise
from ablations.verdicts.evidence import Pair, Run, value_of
from ablations.verdicts.judge import judge
from ablations.verdicts.reasons import decided
from ablations.verdicts.rule import Largest, decide
from ablations.verdicts.summaries import summary_of

DRAWS = 20_000


def hypothesis(**change):
    given = {
        "metric": "probe/knn",
        "contrast": ("register", "baseline"),
        "direction": "rises",
        "smallest_effect": 1.0,
        "control": "control",
    }
    return Hypothesis(**(given | change))


def finished(value, start=0.0, metric="probe/knn"):
    return Run(status="finished", start={metric: start}, end={metric: value})


def runs_of(differences, arm="register", against="baseline"):
    """Finished runs at seeds 0, 1, ... whose differences are these, and a control that differs."""
    pairs = enumerate(differences)
    return {
        key: run
        for seed, difference in pairs
        for key, run in (
            ((arm, seed), finished(float(difference))),
            ((against, seed), finished(0.0)),
            (("control", seed), finished(9.0)),
        )
    }


def judged(differences, **change):
    runs = runs_of(differences)
    return judge({"h": hypothesis(**change)}, {}, runs, range(len(differences)))["h"]


def decided_alone(differences, **change):
    """Label, tags and reason, without Holm's adjustment, which is slow: it collects garbage."""
    one = hypothesis(**change)
    margin = one.smallest_effect
    summary = summarise(list(differences), alpha=one.alpha, margin=margin, test=one.test)
    return decided(one, summary, summary.p)


def spread(mean, standard_deviation, n=8):
    """n differences with exactly this mean and standard deviation."""
    z = scipy.stats.norm.ppf((np.arange(n) + 0.5) / n)
    return mean + standard_deviation * (z - z.mean()) / z.std(ddof=1)


def enumerated_p(differences):
    """Two-sided sign-flip p-value of the studentised mean, one flip at a time."""

    def statistic(d):
        deviation = d.std(ddof=1)
        return math.inf if deviation < 1e-9 else abs(d.mean()) / deviation

    d = np.asarray(differences, dtype=float)
    d = d / np.abs(d).max()
    flips = [statistic(d * signs) for signs in itertools.product((1, -1), repeat=len(d))]
    return np.mean([flip >= statistic(d) - 1e-9 for flip in flips])


def three_errors(share, draws=DRAWS):
    """Three standard errors of a share of draws, and one draw for its steps."""
    return 3 * math.sqrt(share * (1 - share) / draws) + 1 / draws


class TestSignFlip:
    @pytest.mark.parametrize("n", [2, 3, 5, 8])
    @pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
    def test_p_is_that_of_studentised_enumeration(self, n, scale):
        rng = np.random.default_rng(n)
        for shift in (0.0, 0.7):
            d = scale * (rng.standard_normal(n) + shift)
            assert signflip_p(d) == pytest.approx(enumerated_p(d), abs=1e-12)

    @pytest.mark.parametrize(
        "d",
        [
            [0.1, 0.2, -0.3],
            [1, 1, 1, -1],
            [0, 0, 0.3, 0.1, -0.1],
            [0.9, -0.9, 0.2, -0.9, 0.0, 0.7],
        ],
    )
    def test_ties_count_as_at_least_as_large_despite_rounding(self, d):
        assert signflip_p(np.array(d)) == pytest.approx(enumerated_p(d), abs=1e-12)

    @pytest.mark.parametrize("n", [2, 5, 6, 8, 10, 16])
    def test_smallest_p_is_two_over_two_to_the_n(self, n):
        assert signflip_p(np.arange(1.0, n + 1)) == pytest.approx(2 / 2**n, rel=1e-12)

    def test_eight_differences_of_one_sign_give_0_0078(self):
        assert round(float(signflip_p(np.linspace(-3, -1, 8))), 4) == 0.0078

    def test_zeros_give_one(self):
        assert signflip_p(np.zeros(8)) == 1.0

    def test_rows_are_tested_apart(self):
        d = np.random.default_rng(0).standard_normal((4, 6))
        assert signflip_p(d).tolist() == [signflip_p(row) for row in d]

    def test_beyond_sixteen_random_flips_come_near_enumeration_and_repeat(self):
        d = np.random.default_rng(0).standard_normal(18) + 0.5
        sums = np.zeros(1)
        for value in d:
            sums = np.concatenate([sums + value, sums - value])
        exact = np.mean(np.abs(sums) >= abs(d.sum()) - 1e-9)
        # Two-sided is twice the smaller tail, so its error is twice a tail's.
        assert signflip_p(d) == pytest.approx(exact, abs=2 * three_errors(exact / 2, 65_536))
        assert signflip_p(d) == signflip_p(d)

    @pytest.mark.slow
    @pytest.mark.parametrize(("n", "rejected"), [(6, 1), (8, 6), (10, 25)])
    @pytest.mark.parametrize("symmetric", ["normal", "t3", "unequal"])
    def test_false_positives_are_exactly_as_many_as_flips_allow(self, n, rejected, symmetric):
        draws = 4_000
        rng = np.random.default_rng(n)
        d = {
            "normal": lambda: rng.standard_normal((draws, n)),
            "t3": lambda: rng.standard_t(3, (draws, n)),
            "unequal": lambda: rng.standard_normal((draws, n)) * np.arange(1, n + 1),
        }[symmetric]()
        p = np.concatenate([signflip_p(rows) for rows in np.split(d, 20)])
        expected = 2 * rejected / 2**n  # .031, .045, .048
        assert np.mean(p <= 0.05) == pytest.approx(expected, abs=three_errors(expected, draws))

    @pytest.mark.parametrize(("n", "rate"), [(6, 0.066), (8, 0.094), (10, 0.096)])
    def test_skewed_differences_are_a_known_limit(self, n, rate):
        draws = 4_000
        d = np.random.default_rng(n).standard_exponential((draws, n)) - 1
        p = np.concatenate([signflip_p(rows) for rows in np.split(d, 20)])
        assert np.mean(p <= 0.05) == pytest.approx(rate, abs=three_errors(rate, draws) + 0.0005)


class TestIntervals:
    @pytest.mark.slow
    def test_t_interval_is_its_closed_form_at_any_alpha(self):
        d = spread(0.4, 1.3, n=9)
        for alpha in (0.05, 0.01, 0.2):
            verdict = judged(d, alpha=alpha)
            for interval, tail in (
                (verdict.interval, alpha / 2),
                (verdict.interval_equivalence, alpha),
            ):
                half = scipy.stats.t.ppf(1 - tail, 8) * 1.3 / 3
                assert interval == pytest.approx((0.4 - half, 0.4 + half), abs=1e-12)

    def test_inversion_interval_of_six_is_their_range(self):
        assert judged([3, 1, 4, 1.5, 9, 2.6]).interval_inversion == (1, 9)

    @pytest.mark.slow
    def test_five_have_no_inversion_interval_at_0_05(self):
        assert judged([3, 1, 4, 1.5, 9]).interval_inversion is None
        assert judged([3, 1, 4, 1.5, 9], alpha=0.1).interval_inversion == (1, 9)

    def test_the_least_alpha_that_five_attain_has_their_range_as_inversion_interval(self):
        assert inversion_interval(np.array([3, 1, 4, 1.5, 9]), 2 / 2**5) == (1, 9)

    @pytest.mark.parametrize("n", [7, 8, 11])
    def test_inversion_interval_holds_the_shifts_that_are_not_rejected(self, n):
        d = np.random.default_rng(n).standard_normal(n)
        low, high = inversion_interval(d, 0.05)
        shifts = np.array([low - 1e-6, low + 1e-6, (low + high) / 2, high - 1e-6, high + 1e-6])
        kept = signflip_p(d - shifts[:, None]) > 0.05
        assert kept.tolist() == [False, True, True, True, False]

    def test_sixteen_have_the_ends_of_all_their_subsets(self):
        d = np.random.default_rng(16).standard_normal(16)
        sums, sizes = np.zeros(1), np.zeros(1)
        for value in d:
            sums, sizes = np.append(sums, sums + value), np.append(sizes, sizes + 1)
        means = np.sort(sums[1:] / sizes[1:])
        k = math.floor(0.05 * 2**16 / 2)
        assert inversion_interval(d, 0.05) == pytest.approx((means[k - 1], means[-k]))

    def test_beyond_sixteen_the_ends_are_those_of_the_same_random_subsets_each_time(self):
        d = np.random.default_rng(17).standard_normal((2, 17))
        first = inversion_interval(d, 0.05)
        inversion_interval(d[:, :9], 0.05)
        np.testing.assert_array_equal(inversion_interval(d, 0.05), first)
        members = np.random.default_rng(0).integers(0, 2, size=(65_536, 17)).astype(bool)
        means = np.sort([row[one].mean() for one in members if one.any() for row in d[:1]])
        k = math.floor(0.05 * (len(means) + 1) / 2)
        assert (first[0][0], first[1][0]) == pytest.approx((means[k - 1], means[-k]))

    def test_inversion_interval_of_many_is_near_the_t_interval(self):
        verdict = judged(spread(0.0, 1.0, n=25))
        assert verdict.interval_inversion == pytest.approx(verdict.interval, abs=0.03)

    @pytest.mark.slow
    @pytest.mark.parametrize("n", [8, 10])
    def test_both_cover_normal_means_as_often_as_they_say(self, n):
        d = np.random.default_rng(n).standard_normal((DRAWS, n))
        exact = scipy.stats.ttest_1samp(d, 0, axis=-1).confidence_interval(0.95)
        for low, high in (exact, inversion_interval(d, 0.05)):
            assert 0.935 <= np.mean((low <= 0) & (high >= 0)) <= 0.965

    def test_inversion_coverage_of_six_is_31_of_32(self):
        d = np.random.default_rng(6).standard_normal((DRAWS, 6))
        low, high = inversion_interval(d, 0.05)
        covered = np.mean((low <= 0) & (high >= 0))
        assert covered == pytest.approx(31 / 32, abs=three_errors(31 / 32))


class TestStatistics:
    def test_t_p_is_that_of_a_paired_t_test(self):
        d = spread(0.8, 1.3)
        t = 0.8 / (1.3 / math.sqrt(8))
        assert judged(d, test="t").p == pytest.approx(2 * scipy.stats.t.sf(t, 7), rel=1e-9)

    def test_equivalence_p_is_the_larger_of_two_one_sided(self):
        error = 0.7 / math.sqrt(8)
        tails = (
            scipy.stats.t.sf((0.3 + 1) / error, 7),
            scipy.stats.t.cdf((0.3 - 1) / error, 7),
        )
        assert judged(spread(0.3, 0.7)).p_equivalence == pytest.approx(max(tails), rel=1e-9)

    def test_equivalence_p_agrees_with_the_narrow_interval(self):
        rng = np.random.default_rng(0)
        agreed = set()
        for _ in range(15):
            d = rng.standard_normal(6)
            summary = summarise(list(d), alpha=0.1, margin=1.0, test="signflip")
            low, high = summary.interval_equivalence
            inside = low > -1 and high < 1
            assert (summary.p_equivalence < 0.1) == inside
            agreed.add(inside)
        assert agreed == {True, False}

    def test_effects_are_standardised_by_the_differences(self):
        verdict = judged(spread(0.8, 1.6))
        assert verdict.mean == pytest.approx(0.8)
        assert verdict.standard_deviation == pytest.approx(1.6)
        assert verdict.dz == pytest.approx(0.5)
        assert verdict.hedges_g == pytest.approx(0.5 * (1 - 3 / (4 * 7 - 1)), rel=1e-3)

    def test_a_value_is_that_of_the_last_step_unless_step_0_is_asked_for(self):
        run = finished(5.0, start=2.0)
        assert value_of(run, "probe/knn") == 5.0
        assert value_of(run, "probe/knn", minus_start=True) == 3.0
        assert value_of(run, "probe/other") is None
        assert value_of(Run(status="finished", start={}, end={"m": 1.0}), "m", True) is None

    def test_pairs_are_no_single_trial_unless_it_is_said(self):
        pairs = [Pair(seed, 1.0, 1.0, 0.0) for seed in range(8)]
        assert summary_of(hypothesis(), pairs).p_equivalence == 2**-8
        assert summary_of(hypothesis(), pairs, same_trial=True).p_equivalence == 0.0

    def test_two_have_no_standardised_shape_and_three_have(self):
        two = summarise([1.0, 3.0], alpha=0.05, margin=1.0, test="t")
        assert two.dz == pytest.approx(2 / math.sqrt(2))
        assert (two.hedges_g, two.skewness, two.interval_inversion) == (None, None, None)
        # Of two differences t is Cauchy: here 2, and the tail beyond it is arctan(1 / 2) / pi.
        assert two.p == pytest.approx(2 * math.atan(0.5) / math.pi)
        three = summarise([0.0, 0.0, 3.0], alpha=0.05, margin=1.0, test="t")
        assert three.skewness == pytest.approx(1 / math.sqrt(2))
        assert three.hedges_g == pytest.approx(three.dz / math.sqrt(math.pi))

    def test_superiority_of_all_has_the_closed_clopper_pearson_end(self):
        verdict = judged(np.arange(1.0, 9.0))
        assert verdict.probability_of_superiority == 1
        assert verdict.probability_of_superiority_interval == pytest.approx((0.025 ** (1 / 8), 1))

    def test_ties_count_half_and_widen_the_interval(self):
        verdict = judged([1, 2, 3, 4, 0, 0, -1, -2])
        low, high = verdict.probability_of_superiority_interval
        assert verdict.probability_of_superiority == 5 / 8
        assert low == pytest.approx(scipy.stats.beta.ppf(0.025, 4, 5))
        assert high == pytest.approx(scipy.stats.beta.ppf(0.975, 7, 2))

    @pytest.mark.slow
    def test_direction_does_not_change_the_raw_numbers(self):
        d = spread(0.8, 1.3)
        assert judged(d, direction="falls").mean == judged(d).mean
        assert judged(d, direction="falls").interval == judged(d).interval

    def test_minus_start_takes_off_step_0_of_the_same_run(self):
        runs = {("register", s): finished(5.0 + s, start=1.0) for s in range(6)}
        runs |= {("baseline", s): finished(4.0, start=3.0) for s in range(6)}
        verdict = judge({"h": hypothesis(minus_start=True)}, {}, runs, range(6))["h"]
        assert verdict.pairs[2] == (2, 6.0, 1.0, 5.0)


class TestHolm:
    def test_hand_example(self):
        # Of 256 flips: all of one sign 2; smallest of eight negative 4; two smallest negative 6.
        values = {
            "a": [1, 2, 4, 8, 16, 32, 64, 128],
            "b": [-1, 2, 4, 8, 16, 32, 64, 128],
            "c": [1, -2, 4, 8, 16, 32, 64, 128],
        }
        verdicts = self.judged(values, {name: hypothesis(metric=name) for name in values})
        assert [256 * verdicts[name].p for name in "abc"] == pytest.approx([2, 4, 6])
        assert [256 * verdicts[name].p_adjusted for name in "abc"] == pytest.approx([6, 8, 8])

    @pytest.mark.slow
    def test_holds_and_other_families_are_adjusted_apart(self):
        values = {name: [1, 2, 4, 8, 16, 32, 64, 128] for name in "abc"}
        verdicts = self.judged(
            values,
            {
                "a": hypothesis(metric="a"),
                "b": hypothesis(metric="b", direction="holds"),
                "c": hypothesis(metric="c", family="secondary"),
            },
        )
        assert [verdicts[name].p_adjusted for name in "abc"] == [2 / 256] * 3

    def test_a_failed_hypothesis_keeps_its_place(self):
        values = {"a": [1, 2, 4, 8, 16, 32, 64, 128]}
        verdicts = self.judged(
            values, {"a": hypothesis(metric="a"), "lost": hypothesis(metric="lost")}
        )
        assert verdicts["lost"].label == "failed"
        assert verdicts["lost"].p_adjusted is None
        assert verdicts["a"].p_adjusted == pytest.approx(4 / 256)

    def test_a_failed_p_does_not_help_even_if_it_is_the_smallest(self):
        runs = runs_of([-1, 2, 4, 8, 16, 32, 64, 128])
        runs |= runs_of([1, 2, 4, 8, 16, 32, 64, 128], arm="lost")
        runs["lost", 0] = Run(status="collapsed", start={}, end={"probe/knn": 1.0})
        hypotheses = {"a": hypothesis(), "lost": hypothesis(contrast=("lost", "baseline"))}
        verdicts = judge(hypotheses, {}, runs, range(8), multiplicity=Multiplicity(by="holm"))
        assert verdicts["lost"].p == 2 / 256
        assert verdicts["a"].p_adjusted == pytest.approx(2 * 4 / 256)

    def test_too_few_seeds_for_the_family_is_said(self):
        values = {name: spread(2, 0.5) for name in "abcdefgh"}
        verdicts = self.judged(values, {name: hypothesis(metric=name) for name in values})
        assert verdicts["a"].label == "inconclusive"
        assert "p 0.062 after Holm over 8 hypotheses" in verdicts["a"].reason
        assert verdicts["a"].seeds_needed == 9

    @staticmethod
    def judged(values, hypotheses):
        n = len(next(iter(values.values())))
        runs = {}
        for seed in range(n):
            end = {name: float(row[seed]) for name, row in values.items()}
            runs["register", seed] = Run(status="finished", start={}, end=end)
            runs["baseline", seed] = Run(status="finished", start={}, end=dict.fromkeys(end, 0.0))
        return judge(hypotheses, {}, runs, range(n), multiplicity=Multiplicity(by="holm"))


class TestLabels:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("mean", "deviation", "label", "tags", "reason"),
        [
            (2.0, 0.5, "supported", ("strong",), "rises by 2, 95 % interval [1.58, 2.42]: all of"),
            (1.2, 0.5, "supported", (), "above 0, mean at least 1; p 0.0078"),
            (0.0, 1.0, "equivalent", (), "90 % interval [-0.67, 0.67] is inside ±1"),
            (0.5, 0.4, "equivalent", ("negligible-but-nonzero",), "though not 0 (p 0.0"),
            (-1.5, 0.5, "refuted", (), "the opposite of the prediction"),
            (0.1, 0.8, "equivalent", (), "90 % interval [-0.436, 0.636] is inside ±1"),
            (
                -0.9,
                2.0,
                "refuted",
                (),
                "falls by 0.9, 95 % interval [-0.772, 2.57]: a rise would "
                "be less than 1 throughout",
            ),
            (
                -0.3,
                2.0,
                "inconclusive",
                (),
                "falls by 0.3, 95 % interval [-1.37, 1.97]: excludes neither 0 nor a rise of 1",
            ),
            (0.5, 2.0, "inconclusive", (), "excludes neither 0 nor 1"),
            (0.9, 0.5, "inconclusive", (), "above 0, mean less than 1, which is not excluded"),
        ],
    )
    @pytest.mark.parametrize("direction", ["rises", "falls"])
    def test_superiority(self, mean, deviation, label, tags, reason, direction):
        sign = 1 if direction == "rises" else -1
        verdict = judged(sign * spread(mean, deviation), direction=direction)
        assert (verdict.label, verdict.tags) == (label, tags)
        if direction == "rises":
            assert reason in verdict.reason
        assert "\n" not in verdict.reason

    def test_six_equal_zeros_are_no_proof_at_an_alpha_that_so_many_signs_cannot_reach(self):
        for alpha, label in ((2.0**-6, "supported"), (0.0156, "inconclusive")):
            assert decided_alone([0.0] * 6, direction="holds", alpha=alpha)[0] == label

    def test_an_insensitive_end_point_says_whether_the_change_is_not_0(self):
        _, _, reason = decided(
            hypothesis(),
            summarise(list(spread(0.5, 0.2)), alpha=0.05, margin=1.0, test="signflip"),
            0.0078,
            largest=Largest(0.5, "its own contrast"),
        )
        assert reason == (
            "changes by 0.5, 95 % interval [0.333, 0.667], though not 0 (p 0.0078); no arm moves "
            "this end point by 1: the largest effect is 0.5 (its own contrast)"
        )

    @pytest.mark.parametrize("sign", [1, -1])
    @pytest.mark.parametrize(
        ("mean", "deviation", "label", "reason"),
        [
            (0.2, 1.0, "supported", "90 % interval"),
            (2.0, 1.0, "refuted", "is outside ±1"),
            (1.2, 1.0, "inconclusive", "not outside"),
        ],
    )
    def test_equivalence(self, mean, deviation, label, reason, sign):
        verdict = judged(sign * spread(mean, deviation), direction="holds")
        assert (verdict.label, verdict.tags) == (label, ())
        assert reason in verdict.reason

    @pytest.mark.parametrize(("direction", "went"), [("rises", "falls"), ("falls", "rises")])
    def test_the_opposite_of_a_prediction_is_said_as_it_went(self, direction, went):
        sign = 1 if direction == "falls" else -1
        verdict = judged(sign * spread(1.5, 0.5), direction=direction)
        assert verdict.reason == (
            f"{went} by 1.5, 95 % interval [1.08, 1.92], the opposite of the prediction"
        )

    @pytest.mark.parametrize("direction", ["rises", "falls", "differs"])
    def test_no_reason_says_that_something_moves_by_less_than_nothing(self, direction):
        rng = np.random.default_rng(0)
        for mean in (-3, -1, -0.3, 0, 0.3, 1, 3):
            for d in rng.standard_normal((4, 8)) * 2 + mean:
                _, _, reason = decided_alone(d, direction=direction)
                assert not re.search(r"(rises|falls|differs) by -", reason)
        assert "by -0" not in decided_alone([0.0, 4.0, -4.0] * 3, direction=direction)[2]

    @pytest.mark.slow
    def test_levels_in_reasons_follow_alpha(self):
        assert "99 % interval" in judged(spread(2, 0.5), alpha=0.01).reason
        assert "98 % interval" in judged(spread(0, 0.5), alpha=0.01).reason

    def test_labels_come_in_order_on_the_edges(self):
        given = {"smallest_effect": 1.0, "alpha": 0.05, "p_adjusted": 0.05}
        edge = {"interval": (1.0, 3.0), "interval_equivalence": (1.1, 2.9), "mean": 1.0}
        assert decide(direction="rises", **given, **edge) == ("supported", ("strong",))
        assert decide(direction="holds", **given, **edge) == ("refuted", ())
        touching = {"interval": (-1.0, 1.0), "interval_equivalence": (-1.0, 1.0), "mean": 0.0}
        assert decide(direction="rises", **given, **touching) == ("inconclusive", ())
        assert decide(direction="holds", **given, **touching) == ("inconclusive", ())

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"p_adjusted": 0.05 + 1e-12}, ("inconclusive", ())),
            ({"interval": (0.0, 3.0)}, ("supported", ())),
            ({"interval": (-1e-12, 3.0)}, ("inconclusive", ())),
            ({"mean": 1.0 - 1e-12}, ("inconclusive", ())),
            ({"sensitivity": 1.0}, ("supported", ("strong",))),
            ({"sensitivity": 1.0 - 1e-12}, ("insensitive", ())),
            ({"mean": 0.5, "interval": (0.1, 1.0)}, ("inconclusive", ())),
            ({"mean": 0.5, "interval": (0.1, 1.0 - 1e-12)}, ("refuted", ())),
            ({"mean": 0.0, "interval": (-2.0, 2.0)}, ("inconclusive", ())),
            ({"mean": -1e-12, "interval": (-2.0, 2.0)}, ("inconclusive", ("opposite",))),
            ({"direction": "differs", "mean": 0.0, "interval": (-0.5, 2.0)}, ("inconclusive", ())),
            ({"direction": "holds", "mean": -2.0, "interval": (-3.0, -1.0)}, ("refuted", ())),
            ({"direction": "holds", "interval": (1.0 - 1e-12, 3.0)}, ("inconclusive", ())),
            ({"direction": "holds", "mean": -2.0, "interval": (-3.0, -1 + 1e-12)},
             ("inconclusive", ())),
        ],
    )  # fmt: skip
    def test_each_edge_belongs_to_one_side(self, change, expected):
        given = {
            "direction": "rises", "smallest_effect": 1.0, "alpha": 0.05, "p_adjusted": 0.05,
            "mean": 1.0, "interval": (1.0, 3.0), "interval_equivalence": (-9.0, 9.0),
        }  # fmt: skip
        assert decide(**(given | change)) == expected

    @pytest.mark.parametrize(
        ("ends", "p", "label"),
        [
            ((-0.999, 0.999), 0.05, "supported"),
            ((-0.999, 0.999), 0.0501, "inconclusive"),
            ((-1.0, 0.999), 0.05, "inconclusive"),
            ((-0.999, 1.0), 0.05, "inconclusive"),
        ],
    )
    def test_small_is_inside_both_ends_with_a_p_of_alpha_at_most(self, ends, p, label):
        found, tags = decide(
            direction="holds", smallest_effect=1.0, alpha=0.05, mean=0.0, interval=(-0.9, 0.9),
            interval_equivalence=ends, p_adjusted=0.05, p_equivalence=p,
        )  # fmt: skip
        assert found == label
        assert tags == (("negligible-but-nonzero",) if label == "supported" else ())

    # Shares of supported, equivalent, refuted, inconclusive at smallest effect 1.25 deviations, t
    # test, by integration over the deviation. docs/statistics.md gives them, rounded.
    @pytest.mark.parametrize(
        ("n", "truth", "shares"),
        [
            (6, 0.0, (0.00094, 0.67893, 0.13536, 0.18477)),
            (8, 0.0, (0.00020, 0.87246, 0.06270, 0.06464)),
            (8, 0.5, (0.03811, 0.47906, 0.00092, 0.48191)),
            (8, 1.0, (0.49699, 0.05000, 0.00000, 0.45301)),
            (8, 2.0, (0.99978, 0.00000, 0.00000, 0.00022)),
            (10, 0.0, (0.00004, 0.95330, 0.02334, 0.02332)),
        ],
    )
    def test_calibration(self, n, truth, shares):
        smallest_effect = 1.25
        rng = np.random.default_rng(n)
        d = rng.standard_normal((DRAWS, n)) + truth * smallest_effect
        result = scipy.stats.ttest_1samp(d, 0, axis=-1)
        wide, narrow = (result.confidence_interval(level) for level in (0.95, 0.90))
        columns = (d.mean(-1), wide.low, wide.high, narrow.low, narrow.high, result.pvalue)
        labels = [
            decide(
                direction="rises",
                smallest_effect=smallest_effect,
                alpha=0.05,
                mean=mean,
                interval=(low, high),
                interval_equivalence=(narrow_low, narrow_high),
                p_adjusted=p,
            )[0]
            for mean, low, high, narrow_low, narrow_high, p in zip(
                *(column.tolist() for column in columns), strict=True
            )
        ]
        for label, share in zip(
            ("supported", "equivalent", "refuted", "inconclusive"), shares, strict=True
        ):
            assert labels.count(label) / DRAWS == pytest.approx(share, abs=three_errors(share))

    @pytest.mark.slow
    def test_judge_passes_its_numbers_to_the_rule(self):
        rows = spread(2, 0.5), spread(0, 1), spread(-1.5, 0.5), spread(0.9, 0.5)
        runs, hypotheses = {}, {}
        for arm, d in enumerate(rows):
            runs |= runs_of(d, arm=str(arm))
            for test in ("t", "signflip"):
                contrast = (str(arm), "baseline")
                hypotheses[f"{arm} {test}"] = hypothesis(contrast=contrast, test=test, family=test)
        seen = set()
        for verdict in judge(hypotheses, {}, runs, range(8)).values():
            seen.add(verdict.label)
            label, tags = decide(
                direction="rises",
                smallest_effect=1.0,
                alpha=0.05,
                mean=verdict.mean,
                interval=verdict.interval,
                interval_equivalence=verdict.interval_equivalence,
                p_adjusted=verdict.p_adjusted,
            )
            assert (verdict.label, verdict.tags) == (label, tags)
        assert seen == {"supported", "equivalent", "refuted", "inconclusive"}


class TestSeedsNeeded:
    @pytest.mark.parametrize(
        ("effect", "at_80", "at_90"),
        [(0.5, 34, 44), (0.8, 15, 19), (1.0, 10, 13), (1.2, 8, 10), (1.5, 6, 7), (2.0, 5, 5)],
    )
    def test_t_needs_what_tables_of_the_noncentral_t_list(self, effect, at_80, at_90):
        assert seeds_for(TTestPower().power, effect, 0.05) == at_80
        assert seeds_for(TTestPower().power, effect, 0.05, 0.9) == at_90

    def test_stricter_level_needs_more(self):
        assert seeds_for(TTestPower().power, 1.0, 0.00625) == 17
        assert seeds_for(TTestPower().power, 2.0, 0.00625, 0.9) == 8

    def test_search_gives_up(self):
        assert seeds_for(TTestPower().power, 0.001, 0.05) is None
        verdict = judged(spread(0, 1000.0))
        assert verdict.seeds_needed is None
        assert "more than 10,000 seeds are needed for 80 % power" in verdict.reason

    def test_plan_is_for_one_and_a_half_smallest_effects_and_an_inflated_deviation(self):
        verdict = judged(spread(0.5, 2.0))
        inflated = 2 * math.sqrt(7 / scipy.stats.chi2.ppf(0.2, 7))
        n = verdict.seeds_needed
        d = 1.5 + np.random.default_rng(0).standard_normal((DRAWS, n)) * inflated
        low = scipy.stats.ttest_1samp(d, 0, axis=-1).confidence_interval(0.95).low
        power = np.mean((low > 0) & (d.mean(axis=-1) >= 1))
        assert 0.8 - three_errors(0.8) <= power <= 0.83
        assert (
            f"{verdict.seeds_needed} seeds are needed for 80 % power for a true effect of 1.5; "
            "8 ran" in verdict.reason
        )

    def test_plan_for_holds_gives_tost_its_power_at_no_change(self):
        verdict = judged(spread(1.0, 1.0), direction="holds")
        inflated = math.sqrt(7 / scipy.stats.chi2.ppf(0.2, 7))
        n = verdict.seeds_needed
        d = np.random.default_rng(0).standard_normal((DRAWS, n)) * inflated
        interval = scipy.stats.ttest_1samp(d, 0, axis=-1).confidence_interval(0.9)
        power = np.mean((interval.low > -1) & (interval.high < 1))
        assert 0.8 - three_errors(0.8) <= power <= 0.84
        assert "to show that nothing changes" in verdict.reason

    def test_only_inconclusive_needs_more(self):
        assert judged(spread(2.0, 0.5)).seeds_needed is None


class TestTooFewSeeds:
    def test_five_say_why(self):
        verdict = judged(spread(5, 0.1, n=5), test="t")
        assert verdict.label == "inconclusive"
        assert verdict.reason == (
            "5 seeds; 6 is the fewest at which a two-sided exact test can reach 0.05"
        )
        assert verdict.seeds_needed == 6
        assert verdict.p_adjusted == verdict.p < 0.001

    @pytest.mark.slow
    def test_one_and_none_have_no_numbers_they_cannot_have(self):
        one = judged([2.0])
        assert (one.label, one.n, one.mean) == ("inconclusive", 1, 2.0)
        assert (one.standard_deviation, one.interval, one.p, one.p_adjusted) == (None,) * 4
        none = judged([])
        assert (none.label, none.n, none.mean) == ("inconclusive", 0, None)
        assert none.probability_of_superiority is None

    def test_holds_needs_six_too(self):
        assert judged(spread(0, 0.1, n=5), direction="holds").label == "inconclusive"


class TestFailed:
    @pytest.mark.parametrize("status", ["collapsed", "diverged", "failed"])
    def test_an_unfinished_run_names_arm_status_cause_and_seeds(self, status):
        runs = runs_of(spread(2, 0.5))
        for seed in (1, 4):
            runs["register", seed] = Run(status=status, reason="at\nstep 9", start={}, end={})
        verdict = judge({"h": hypothesis()}, {}, runs, range(8))["h"]
        assert verdict.label == "failed"
        assert verdict.reason == f"register: {status} (at step 9), seeds 1, 4"

    def test_a_run_that_is_not_there_is_missing(self):
        runs = runs_of(spread(2, 0.5))
        del runs["baseline", 3]
        verdict = judge({"h": hypothesis()}, {}, runs, range(8))["h"]
        assert (verdict.label, verdict.reason) == ("failed", "baseline: missing, seed 3")

    def test_statistics_are_those_of_the_other_pairs_and_no_pair_is_dropped(self):
        runs = runs_of([1, 2, 3, 4, 5, 6, 7, 8])
        del runs["baseline", 3]
        verdict = judge({"h": hypothesis()}, {}, runs, range(8))["h"]
        assert verdict.n == 7
        assert verdict.mean == pytest.approx((36 - 4) / 7)
        assert verdict.p == pytest.approx(2 / 2**7)
        assert verdict.pairs[3] == (3, 4.0, None, None)
        assert [pair.seed for pair in verdict.pairs] == list(range(8))

    def test_a_collapsed_run_fails_even_with_numbers(self):
        runs = runs_of(spread(2, 0.5))
        runs["register", 0] = Run(status="collapsed", start={}, end={"probe/knn": 1.0})
        verdict = judge({"h": hypothesis()}, {}, runs, range(8))["h"]
        assert (verdict.label, verdict.n) == ("failed", 8)

    @pytest.mark.parametrize("end", [{}, {"probe/knn": math.nan}, {"probe/knn": math.inf}])
    def test_an_absent_or_infinite_metric_is_named(self, end):
        runs = runs_of(spread(2, 0.5))
        runs["register", 2] = Run(status="finished", start={}, end=end)
        verdict = judge({"h": hypothesis()}, {}, runs, range(8))["h"]
        assert verdict.label == "failed"
        assert verdict.reason == "register: no finite probe/knn at the last step, seed 2"

    @pytest.mark.slow
    def test_minus_start_needs_step_0(self):
        runs = runs_of(spread(2, 0.5))
        runs["register", 2] = Run(status="finished", start={}, end={"probe/knn": 1.0})
        assert judge({"h": hypothesis()}, {}, runs, range(8))["h"].label != "failed"
        verdict = judge({"h": hypothesis(minus_start=True)}, {}, runs, range(8))["h"]
        assert verdict.reason == (
            "register: no finite probe/knn at step 0 or the last step, seed 2"
        )

    def test_a_difference_too_large_for_a_number_is_named(self):
        runs = runs_of(spread(2, 0.5))
        runs["register", 2], runs["baseline", 2] = finished(1e308), finished(-1e308)
        verdict = judge({"h": hypothesis()}, {}, runs, range(8))["h"]
        assert verdict.reason == "probe/knn: no finite difference, seed 2"

    def test_failed_comes_before_too_few_seeds(self):
        runs = runs_of([1.0, 2.0])
        del runs["baseline", 1]
        assert judge({"h": hypothesis()}, {}, runs, range(2))["h"].label == "failed"

    def test_repeated_seeds_are_refused(self):
        with pytest.raises(ValueError, match=r"must differ.*\[1, 1\]"):
            judge({}, {}, {}, [1, 1])


class TestGates:
    def test_a_missed_gate_fails_the_contrasts_of_its_arm_only(self):
        runs = runs_of(spread(2, 0.5)) | runs_of(spread(5, 0.5), arm="wide")
        hypotheses = {
            "register": hypothesis(),
            "wide": hypothesis(contrast=("wide", "baseline")),
            "between": hypothesis(contrast=("wide", "register")),
        }
        gate = Gate(arms=("register", "wide"), metric="probe/knn", at_least=3)
        verdicts = judge(hypotheses, {"learned": gate}, runs, range(8))
        assert verdicts["wide"].label == "supported"
        for name in ("register", "between"):
            assert verdicts[name].label == "failed"
            assert verdicts[name].reason == "gate learned: register has mean probe/knn 2, below 3"
        assert verdicts["between"].mean == pytest.approx(3)

    def test_the_mean_decides_and_the_threshold_passes(self):
        runs = runs_of([2.0] * 8) | {("register", 0): finished(4.0), ("register", 1): finished(0.0)}
        gate = Gate(arms=("register",), metric="probe/knn", at_least=2)
        assert judge({"h": hypothesis()}, {"g": gate}, runs, range(8))["h"].label != "failed"

    def test_minus_start_is_the_rise_since_step_0(self):
        runs = runs_of(spread(2, 0.5))
        runs |= {("baseline", seed): finished(9.0, start=8.5) for seed in range(8)}
        gate = Gate(arms=("baseline",), metric="probe/knn", minus_start=True, at_least=1)
        verdict = judge({"h": hypothesis()}, {"learned": gate}, runs, range(8))["h"]
        assert verdict.reason == (
            "gate learned: baseline has mean probe/knn minus step 0 0.5, below 1"
        )

    def test_an_absent_value_misses_it(self):
        gate = Gate(arms=("baseline",), metric="probe/linear", at_least=-100)
        runs = runs_of(spread(2, 0.5))
        verdict = judge({"h": hypothesis()}, {"g": gate}, runs, range(8))["h"]
        assert verdict.reason == (
            "gate g: baseline has no finite probe/linear, seeds 0, 1, 2, 3, 4, 5, 6, 7"
        )


class TestEqualDifferences:
    def test_zeros_are_equivalent_with_p_one(self):
        verdict = judged([0.0] * 8)
        assert (verdict.label, verdict.tags) == ("equivalent", ())
        assert verdict.interval == verdict.interval_inversion == (0, 0)
        assert (verdict.p, verdict.p_equivalence) == (1.0, 2**-8)
        assert (verdict.standard_deviation, verdict.dz, verdict.hedges_g) == (0.0, None, None)
        assert verdict.probability_of_superiority == 0.5

    @pytest.mark.parametrize("test", ["t", "signflip"])
    @pytest.mark.parametrize("n", [7, 8, 12])
    def test_one_value_is_its_own_interval_with_exact_p(self, test, n):
        verdict = judged([2.1] * n, test=test)
        assert (verdict.label, verdict.tags) == ("supported", ("strong",))
        assert verdict.interval == verdict.interval_equivalence == (verdict.mean, verdict.mean)
        assert verdict.p == pytest.approx(2 / 2**n)
        assert verdict.p_equivalence == 1.0

    def test_differences_equal_but_for_rounding_are_equal(self):
        runs = {("register", s): finished(0.1 * s + 0.3) for s in range(8)}
        runs |= {("baseline", s): finished(0.1 * s) for s in range(8)}
        runs |= {("control", s): finished(0.1 * s - 2) for s in range(8)}
        verdict = judge({"h": hypothesis(test="t")}, {}, runs, range(8))["h"]
        assert len({pair.difference for pair in verdict.pairs}) > 1
        assert verdict.standard_deviation == 0.0
        assert verdict.label == "equivalent"

    @pytest.mark.slow
    def test_stricter_than_flips_can_reach_says_so(self):
        for deviation in (0.0, 3e-12, 1e-6):
            verdict = judged(spread(2.0, deviation), alpha=0.001)
            assert verdict.label == "inconclusive"
            assert verdict.seeds_needed == 11


class TestOutcome:
    @pytest.mark.slow
    def test_order_of_mappings_changes_nothing(self):
        d = np.random.default_rng(3).standard_normal(8)
        runs = runs_of(d)
        shuffled = dict(sorted(runs.items(), key=lambda item: (item[0][1] * 7 % 5, item[0])))
        hypotheses = {"a": hypothesis(), "b": hypothesis(direction="falls")}
        first = judge(hypotheses, {}, runs, range(8))
        second = judge(dict(reversed(hypotheses.items())), {}, shuffled, range(8))
        assert first == second
        assert (list(first), list(second)) == (["a", "b"], ["b", "a"])
        assert [pair.difference for pair in first["a"].pairs] == pytest.approx(d)

    def test_pairs_follow_the_planned_seeds(self):
        runs = runs_of([1, 2, 3, 4, 5, 6, 7])
        verdict = judge({"h": hypothesis()}, {}, runs, [6, 0, 3, 2, 1, 5])["h"]
        assert verdict.seeds == (6, 0, 3, 2, 1, 5)
        assert [pair.difference for pair in verdict.pairs] == [7, 1, 4, 3, 2, 6]

    @pytest.mark.parametrize("d", [[], [1.0], [0.0] * 8, list(range(8)), [2.0] * 5])
    def test_json_is_strict_and_comes_back_the_same(self, d):
        plain = judged(d).to_json()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain

    def test_json_names_the_parts_of_a_pair(self):
        assert judged([1.5]).to_json()["pairs"] == [
            {"seed": 0, "arm": 1.5, "against": 0.0, "difference": 1.5}
        ]


# Contrasts of other shapes than two arms


def runs_at(values, metric="probe/knn"):
    """Finished runs of several arms, from {arm: values by seed}."""
    return {
        (arm, seed): finished(float(value), metric=metric)
        for arm, row in values.items()
        for seed, value in enumerate(row)
    }


@pytest.mark.slow
def test_a_contrast_of_one_arm_is_its_value_against_zero():
    values = spread(2.0, 0.5)
    alone = judge({"h": hypothesis(contrast=("register",))}, {}, runs_of(values), range(8))["h"]
    against_zero = judged(values)
    assert alone == against_zero
    assert alone.label == "supported"


def test_a_weighted_contrast_is_the_weighted_sum_of_each_seed():
    rng = np.random.default_rng(0)
    values = {arm: rng.normal(size=8) for arm in "abcd"}
    weights = {"a": 0.5, "b": 0.5, "c": -0.5, "d": -0.5}
    found = judge({"h": hypothesis(contrast=weights)}, {}, runs_at(values), range(8))["h"]
    expected = sum(weight * values[arm] for arm, weight in weights.items())
    assert [pair.difference for pair in found.pairs] == pytest.approx(list(expected))
    assert found.mean == pytest.approx(expected.mean())
    assert found.p == pytest.approx(enumerated_p(expected))


def test_an_interaction_is_a_difference_of_differences():
    rng = np.random.default_rng(1)
    values = {arm: rng.normal(size=8) for arm in "abcd"}
    weights = {"a": 1.0, "b": -1.0, "c": -1.0, "d": 1.0}
    found = judge({"h": hypothesis(contrast=weights)}, {}, runs_at(values), range(8))["h"]
    expected = (values["a"] - values["b"]) - (values["c"] - values["d"])
    assert found.mean == pytest.approx(expected.mean())


@pytest.mark.slow
def test_the_arm_compared_with_may_have_a_metric_of_its_own():
    runs = runs_at({"register": np.full(8, 3.0)}) | runs_at(
        {"baseline": spread(1.0, 0.1)}, metric="probe/other"
    )
    found = judge({"h": hypothesis(metric_against="probe/other")}, {}, runs, range(8))["h"]
    assert found.mean == pytest.approx(2.0)
    swapped = judge({"h": hypothesis()}, {}, runs, range(8))["h"]
    assert swapped.label == "failed"
    assert "baseline: no finite probe/knn" in swapped.reason


def test_every_arm_of_a_contrast_must_have_finished():
    values = {arm: np.ones(8) for arm in "abc"}
    runs = runs_at(values)
    runs["c", 3] = Run(status="collapsed", reason="one output", start={}, end={})
    weights = {"a": 1.0, "b": -0.5, "c": -0.5}
    found = judge({"h": hypothesis(contrast=weights)}, {}, runs, range(8))["h"]
    assert found.label == "failed"
    assert found.reason == "c: collapsed (one output), seed 3"
    assert found.n == 7


def test_a_gate_of_any_arm_of_a_contrast_counts():
    weights = {"a": 1.0, "b": -0.5, "c": -0.5}
    gate = Gate(arms=("c",), metric="probe/knn", at_least=2.0)
    runs = runs_at({arm: np.ones(8) for arm in "abc"})
    found = judge({"h": hypothesis(contrast=weights)}, {"g": gate}, runs, range(8))["h"]
    assert found.label == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
def test_differs_is_supported_in_either_direction_and_never_refuted(sign):
    found = judged(sign * spread(2.0, 0.5), direction="differs")
    assert (found.label, found.tags) == ("supported", ("strong",))
    assert judged(sign * spread(0.1, 0.3), direction="differs").label == "equivalent"
    assert decided_alone(sign * spread(0.7, 0.5), direction="differs")[0] == "inconclusive"
    assert decided_alone(sign * spread(0.6, 0.25), direction="rises")[0] != "supported"


def test_differs_is_what_the_better_of_both_directions_says():
    rng = np.random.default_rng(2)
    seen = set()
    for _ in range(2000):
        mean, half, p = rng.uniform(-2, 2), rng.uniform(0.05, 2), rng.uniform(0, 0.1)
        given = {
            "smallest_effect": 1.0,
            "alpha": 0.05,
            "mean": mean,
            "interval": (mean - half, mean + half),
            "interval_equivalence": (mean - 0.8 * half, mean + 0.8 * half),
            "p_adjusted": p,
        }
        both = [decide(direction=direction, **given) for direction in ("rises", "falls")]
        labels = {label for label, _ in both}
        found, tags = decide(direction="differs", **given)
        seen.add(found)
        if "supported" in labels:
            assert (found, tags) in both
        elif "equivalent" in labels:
            assert found == "equivalent"
        else:
            assert (found, tags) == ("inconclusive", ())
    assert seen == {"supported", "equivalent", "inconclusive"}


@pytest.mark.parametrize(
    ("contrast", "message"),
    [
        ((), "got 0 arms"),
        (("a", "b", "c"), "got 3 arms"),
        (("a", "a"), "compares 'a' with itself"),
        ({"a": 0.0}, "weight other than 0"),
        ({}, "weight other than 0"),
    ],
)
def test_what_is_no_contrast_is_refused(contrast, message):
    with pytest.raises(ValueError, match=message):
        hypothesis(contrast=contrast)
