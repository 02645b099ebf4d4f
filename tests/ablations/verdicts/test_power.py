"""Simulated power, against the judge itself and against studies simulated another way."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from ablations.spec import Claim, Hypothesis, Multiplicity
from ablations.statistics.flips import signs
from ablations.statistics.multiplicity import holm_p
from ablations.statistics.power import tost_power
from ablations.statistics.sign_flip import signflip_p
from ablations.verdicts import power as simulating
from ablations.verdicts.claims import judge_claims
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import decisive_p, judge
from ablations.verdicts.power import Design, claims_supported, supported
from ablations.verdicts.spread import Spread, assumed

SEEDS = 7


def hypothesis(arm="a", **changes):
    stated = {"metric": "m", "contrast": (arm, "baseline"), "direction": "rises",
              "smallest_effect": 1.0, "family": "one"}  # fmt: skip
    return Hypothesis(**{**stated, **changes})


STATED = {
    "a": hypothesis("a"),
    "b": hypothesis("b", direction="falls", smallest_effect=0.5),
    "c": hypothesis("c", direction="differs", family="two"),
    "d": hypothesis("d", alpha=0.2, family="two"),
    "e": hypothesis("e", direction="holds", smallest_effect=1.0, control="far"),
    "f": hypothesis("f", direction="holds", smallest_effect=1.3, control="far", family="two"),
    "g": hypothesis("g", test="t", family="three"),
    "h": hypothesis("h", secondary=True),
    "i": hypothesis("i", secondary=True, family="two"),
}
EFFECTS = np.array([1.2, -0.7, 1.2, 1.1, 0.0, 0.0, 1.0, 1.1, 1.1])
CLAIMS = {
    "all": Claim(text="", hypotheses=("a", "b", "e")),
    "any": Claim(text="", hypotheses=("b", "c", "i"), rule="any"),
    "any that holds": Claim(text="", hypotheses=("e", "f", "g"), rule="any"),
    "one": Claim(text="", hypotheses=("a", "c"), rule="c"),
}


def runs_of(differences):
    """Runs whose differences from the baseline are these, [hypotheses, seeds], and a control."""
    values = {"baseline": np.zeros(SEEDS), "far": 100.0 + np.arange(SEEDS) / 100,
              **dict(zip(STATED, differences, strict=True))}  # fmt: skip
    return {
        (arm, seed): Run(status="finished", start={"m": 0.0}, end={"m": float(of_arm[seed])})
        for arm, of_arm in values.items()
        for seed in range(SEEDS)
    }


def judged(differences, multiplicity):
    """Which hypotheses, and which claims, the judge supports in one study."""
    runs = runs_of(differences)
    verdicts = judge(STATED, {}, runs, range(SEEDS), multiplicity=multiplicity, advise=False)
    labels = {name: one.label for name, one in verdicts.items()}
    of_claims = judge_claims(CLAIMS, STATED, labels, decisive_p(STATED, verdicts))
    return (
        [label == "supported" for label in labels.values()],
        [one.label == "supported" for one in of_claims.values()],
    )


@pytest.mark.parametrize(
    ("by", "studies"),
    [
        pytest.param("max-t", 300, marks=pytest.mark.slow),
        ("max-t", 20),
        ("holm", 20),
        ("fixed-sequence", 20),
    ],
)
def test_a_simulated_study_is_decided_as_the_judge_decides_it(by, studies):
    multiplicity = Multiplicity(by=by)
    draws = np.random.default_rng(0).standard_normal((studies, len(STATED), SEEDS))
    differences = EFFECTS[:, None] + draws
    found, p = supported(STATED, differences, multiplicity)
    of_claims = claims_supported(CLAIMS, STATED, found, p)
    expected = [judged(one, multiplicity) for one in differences]
    np.testing.assert_array_equal(found, [labels for labels, _ in expected])
    np.testing.assert_array_equal(of_claims, [claims for _, claims in expected])
    if studies >= 100:
        # All of them come out both ways.
        assert all(0 < share < 1 for share in (*found.mean(0), *of_claims.mean(0)))


def simulated_otherwise(effects, seeds, alpha=0.05, studies=10_000):
    """Shares of studies that support each of a family's rises by s = 1, and all of them.

    Written from the definitions: every sign flip is applied to the data, and step-down max-T is
    the closed test in which each set of hypotheses is tested by its largest t.
    """
    m = len(effects)
    d = np.array(effects)[:, None] + np.random.default_rng(77).standard_normal((studies, m, seeds))

    def t(x):
        return np.abs(x.mean(-1) / x.std(-1, ddof=1))

    flips = np.array(list(itertools.product((1, -1), repeat=seeds)))
    flipped = np.stack([t(d * flip) for flip in flips])
    p = np.zeros((studies, m))
    for size in range(1, m + 1):
        for members in map(list, itertools.combinations(range(m), size)):
            largest = flipped[..., members].max(-1)
            of_set = (largest >= largest[0] - 1e-9).mean(0)
            p[:, members] = np.maximum(p[:, members], of_set[:, None])
    low = scipy.stats.ttest_1samp(d, 0, axis=-1).confidence_interval(1 - alpha).low
    found = (p <= alpha) & (low > 0) & (d.mean(-1) >= 1)
    return found.mean(0), found.all(1).mean()


@pytest.mark.parametrize(("multiple", "seeds"), [(1.0, 6), (1.5, 6), (2.0, 6), (1.5, 8)])
def test_power_is_within_two_points_of_ten_thousand_studies_simulated_another_way(multiple, seeds):
    stated = {arm: hypothesis(arm) for arm in "abc"}
    claims = {"all": Claim(text="", hypotheses=tuple("abc"))}
    design = Design(hypotheses=stated, claims=claims, seeds=seeds, spread=assumed(stated))
    found = design.power(multiple)
    expected, of_claim = simulated_otherwise([multiple] * 3, seeds)
    assert list(found.hypotheses.values()) == pytest.approx(expected, abs=0.02)
    assert found.claims["all"] == pytest.approx(of_claim, abs=0.02)


def of(design, name="a", multiple=1.5, studies=2000):
    return design.power(multiple, studies).hypotheses[name]


@pytest.mark.parametrize(
    ("seeds", "at_1", "at_1_5"), [(6, 0.51, 0.83), (8, 0.67, 0.95), (10, 0.80, 0.99)]
)
def test_power_of_a_t_test_is_that_of_published_tables(seeds, at_1, at_1_5):
    # A smallest effect near 0 leaves the test alone; the table is of effects in deviations.
    stated = {"a": hypothesis(smallest_effect=1e-3, test="t")}
    design = Design(hypotheses=stated, claims={}, seeds=seeds, spread=assumed(stated, 1000.0))
    for effect, power in ((1000.0, at_1), (1500.0, at_1_5)):
        assert of(design, multiple=effect, studies=10_000) == pytest.approx(power, abs=0.015)


def test_equivalence_without_a_control_has_no_power():
    stated = {"a": hypothesis(direction="holds")}
    assert of(Design(hypotheses=stated, claims={}, seeds=8, spread=assumed(stated, 0.1))) == 0


def test_equivalence_has_the_power_of_its_formula():
    stated = {"a": hypothesis(direction="holds", control="far")}
    design = Design(hypotheses=stated, claims={}, seeds=8, spread=assumed(stated, 0.8))
    for multiple in (1.0, 2.0):
        power = of(design, multiple=multiple, studies=10_000)
        assert power == pytest.approx(tost_power(1.25, 8, 0.05), abs=0.015)


def test_a_predicted_collapse_has_the_power_of_its_exact_test():
    # Of 8 seeds, McNemar needs 6 that collapse in one arm alone, and Fisher 5.
    def power(share, **changes):
        stated = {"a": hypothesis(metric="", endpoint="collapsed", smallest_effect=0.5, **changes)}
        design = Design(hypotheses=stated, claims={}, seeds=8, spread=assumed(stated))
        return of(design, multiple=2 * share, studies=10_000)

    for share in (0.5, 0.75):
        least = scipy.stats.binom(8, share).sf
        assert power(share) == pytest.approx(least(5), abs=0.015)
        assert power(share, direction="falls") == pytest.approx(least(5), abs=0.015)
        assert power(share, paired=False) == pytest.approx(least(4), abs=0.015)
    assert power(1.0) == power(2.0) == 1.0


def test_a_collapse_that_the_judge_supports_is_one_that_is_simulated_so():
    one = hypothesis(metric="", endpoint="collapsed", smallest_effect=0.3)
    for count in range(9):
        happened = np.arange(8) < count
        runs = {("a", seed): Run(status="collapsed" if is_so else "finished", start={}, end={})
                for seed, is_so in enumerate(happened)}  # fmt: skip
        runs |= {("baseline", seed): Run(status="finished", start={}, end={}) for seed in range(8)}
        label = judge({"a": one}, {}, runs, range(8))["a"].label
        found, _ = supported({"a": one}, 1.0 * happened[None, None], Multiplicity())
        assert (label == "supported") == found[0, 0]


def test_many_seeds_are_simulated_by_some_of_their_sign_flips():
    stated = {arm: hypothesis(arm) for arm in "abc"}
    design = Design(hypotheses=stated, claims={}, seeds=12, spread=assumed(stated, 1.7))
    draws = 1.5 + 1.7 * np.random.default_rng(5).standard_normal((2000, 3, 12))
    exact = supported(stated, draws, Multiplicity())[0].mean()
    assert np.mean(list(design.power(1.5, 4000).hypotheses.values())) == pytest.approx(
        exact, abs=0.03
    )


def test_the_least_detectable_effect_has_the_power_that_is_said():
    stated = {
        "a": hypothesis("a"),
        "b": hypothesis("b", direction="falls", smallest_effect=0.1),
        "e": hypothesis("e", direction="holds", smallest_effect=9.0, control="far"),
    }
    claims = {
        "all": Claim(text="", hypotheses=("a", "b", "e")),
        "none": Claim(text="", hypotheses=("e",)),
    }
    spread = assumed(stated, 1.3)
    spread = replace(spread, deviations={**spread.deviations, "e": 1.3})
    design = Design(hypotheses=stated, claims=claims, seeds=8, spread=spread)
    least = design.least_detectable()
    assert design.power(least.hypotheses["a"]).hypotheses["a"] == pytest.approx(0.8, abs=0.02)
    assert design.power(least.hypotheses["b"]).hypotheses["b"] == pytest.approx(0.8, abs=0.02)
    assert design.power(least.claims["all"]).claims["all"] == pytest.approx(0.8, abs=0.02)
    assert (least.hypotheses["e"], least.claims["none"]) == (None, None)
    hopeless = Design(hypotheses=stated, claims={}, seeds=5, spread=assumed(stated))
    assert set(hopeless.least_detectable().hypotheses.values()) == {None}


def test_correlated_hypotheses_cost_their_family_less():
    stated = {arm: hypothesis(arm) for arm in "abcdef"}
    ones = Spread(
        deviations=dict.fromkeys(stated, 1.0), from_pilot=frozenset(), correlation=np.ones((6, 6))
    )
    only_a = {"a": stated["a"]}
    alike, apart, alone = (
        of(Design(hypotheses=some, claims={}, seeds=6, spread=spread))
        for some, spread in ((stated, ones), (stated, assumed(stated)), (only_a, assumed(only_a)))
    )
    assert alike == pytest.approx(alone, abs=0.04)
    assert apart < alone - 0.1


def test_fewer_than_six_seeds_support_nothing():
    stated = {"a": hypothesis()}
    assert of(Design(hypotheses=stated, claims={}, seeds=5, spread=assumed(stated, 0.01))) == 0


def test_an_effect_that_all_studies_find_is_not_taken_for_one_that_few_find():
    stated = {"a": hypothesis()}
    design = Design(hypotheses=stated, claims={}, seeds=8, spread=assumed(stated, 0.03))
    least = design.least_detectable().hypotheses["a"]
    # The mean must be 1 or more, and varies by 0.03 over the root of 8.
    assert 1.0 < least < 1.15
    assert design.power(least).hypotheses["a"] > 0.8


def test_what_happens_at_every_seed_is_found_at_the_first_effect_that_is_looked_at():
    stated = {"a": hypothesis(metric="", endpoint="collapsed", smallest_effect=1.0)}
    design = Design(hypotheses=stated, claims={}, seeds=8, spread=assumed(stated))
    least = design.least_detectable().hypotheses["a"]
    assert design.power(least).hypotheses["a"] == pytest.approx(1.0, abs=0.2)
    assert design.power(0.5).hypotheses["a"] < 0.1


@pytest.mark.parametrize("direction", ["rises", "falls", "differs"])
def test_exactly_the_smallest_effect_is_supported_in_a_simulated_study_too(direction):
    sign = -1.0 if direction == "falls" else 1.0
    stated = {"a": hypothesis(direction=direction)}
    for effect, is_so in ((1.0, True), (1.0 - 1e-9, False)):
        found, p = supported(stated, np.full((1, 1, 8), sign * effect), Multiplicity())
        assert (bool(found[0, 0]), p[0, 0]) == (is_so, 2 / 2**8)


def test_a_p_of_exactly_alpha_supports_a_hypothesis_and_one_of_two_at_twice_that():
    least = 2 / 2**8
    claims = {"any": Claim(text="", hypotheses=("a", "b"), rule="any")}
    for alpha, is_so in ((least, False), (2 * least, True)):
        stated = {name: hypothesis(name, alpha=alpha, family=name) for name in "ab"}
        found, p = supported(stated, np.full((1, 2, 8), 2.0), Multiplicity())
        assert found.tolist() == [[True, True]]
        assert claims_supported(claims, stated, found, p).tolist() == [[is_so]]


def test_a_simulated_study_of_fewer_than_six_seeds_has_a_p_of_1():
    found, p = supported({"a": hypothesis()}, np.full((3, 1, 5), 2.0), Multiplicity())
    assert found.tolist() == [[False]] * 3
    assert p.tolist() == [[1.0]] * 3


def test_an_effect_of_a_yes_or_no_is_the_share_of_seeds():
    ends = {"metric": "", "endpoint": "collapsed", "smallest_effect": 0.5}
    stated = {
        "a": hypothesis(**ends),
        "b": hypothesis(**ends, direction="falls"),
        "c": hypothesis(smallest_effect=2.0),
    }
    design = Design(hypotheses=stated, claims={}, seeds=8, spread=assumed(stated))
    draws = np.concatenate(list(design.simulated(0.5, 600)))
    assert draws.shape == (600, 3, 8)
    assert set(np.unique(draws[:, 0])) == {0.0, 1.0}
    assert set(np.unique(draws[:, 1])) == {-1.0, 0.0}
    assert draws.mean((0, 2)) == pytest.approx([0.25, -0.25, 1.0], abs=0.1)
    assert draws[:, 2].std() == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("direction", ["rises", "falls", "differs"])
def test_support_needs_p_the_interval_and_the_mean(direction):
    effects = np.linspace(-3, 3, 400)[:, None]
    differences = effects + np.random.default_rng(5).standard_normal((400, 8)) ** 3
    found, _ = supported(
        {"a": hypothesis(direction=direction)}, differences[:, None], Multiplicity()
    )
    low, high = scipy.stats.ttest_1samp(differences, 0, axis=1).confidence_interval()
    rises = (low >= 0) & (differences.mean(axis=1) >= 1)
    falls = (high <= 0) & (differences.mean(axis=1) <= -1)
    shown = {"rises": rises, "falls": falls, "differs": rises | falls}[direction]
    p_suffices = signflip_p(differences) <= 0.05
    np.testing.assert_array_equal(found[:, 0], shown & p_suffices)
    assert (shown & ~p_suffices).any() or (p_suffices & ~shown).any()


def test_simulated_differences_are_the_same_draws_around_each_effect():
    stated = {"a": hypothesis("a"), "b": hypothesis("b", direction="falls")}
    correlation = np.array([[1.0, 0.6], [0.6, 1.0]])
    spread = replace(assumed(stated), deviations={"a": 1.0, "b": 3.0}, correlation=correlation)
    design = Design(hypotheses=stated, claims={}, seeds=8, spread=spread)
    none, twice = (np.concatenate(list(design.simulated(m, 600))) for m in (0.0, 2.0))
    np.testing.assert_allclose(twice - none, np.array([2.0, -2.0])[:, None] + 0 * none)
    draws = none.swapaxes(0, 1).reshape(2, -1)
    np.testing.assert_allclose(np.corrcoef(draws), correlation, atol=0.05)
    np.testing.assert_allclose(draws.std(axis=1), [1.0, 3.0], rtol=0.05)


def test_up_to_ten_seeds_all_patterns_of_signs_are_simulated_and_beyond_as_many_random_ones():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(simulating._flips(10, rng), signs(10))
    some = simulating._flips(11, rng)
    assert some.shape == (2**9, 11)
    assert some[0].tolist() == [1.0] * 11
    assert set(np.unique(some)) == {-1.0, 1.0}
    assert abs(some.mean()) < 0.1


def test_the_effect_between_two_lies_where_their_probits_meet_that_of_80_percent():
    # 0.8 is halfway in probits from 0.5 to this, and 2 is halfway from 1 to 4 in logarithms.
    above = scipy.stats.norm.cdf(2 * scipy.stats.norm.ppf(0.8))
    assert simulating._crossing(1.0, 0.5, 4.0, above) == pytest.approx(2.0)
    assert simulating._crossing(1.0, 0.0, 4.0, above) == 4.0
    # What no study finds, or all, counts as one in 10,000.
    assert simulating._crossing(1.0, 1e-9, 4.0, 1.0) == simulating._crossing(
        1.0, 1e-4, 4.0, 1 - 1e-4
    )


@pytest.mark.parametrize(("by", "of_two"), [("max-t", 0.25), ("holm", 0.5)])
def test_a_simulated_p_is_the_share_of_the_flips_that_are_given(by, of_two):
    # Of differences that are all the same only the first flip leaves the mean as large.
    flips = np.ones((4, 6))
    flips[1, 0] = flips[2, 1] = flips[3, 2] = -1.0
    for names, p in (("a", 0.25), ("ab", of_two)):
        stated = {name: hypothesis(name) for name in names}
        _, found = supported(stated, np.full((1, len(names), 6), 2.0), Multiplicity(by=by), flips)
        assert found.tolist() == [[p] * len(names)]


def test_holm_adjusts_the_sign_flip_p_of_each_test():
    stated = {"a": hypothesis("a"), "b": hypothesis("b")}
    differences = 1.0 + np.random.default_rng(0).standard_normal((3, 2, SEEDS))
    _, p = supported(stated, differences, Multiplicity(by="holm"))
    np.testing.assert_allclose(p, holm_p(signflip_p(differences)))


def test_secondary_hypotheses_are_adjusted_by_benjamini_and_hochberg():
    stated = {name: hypothesis(name, secondary=True) for name in "ab"}
    differences = 1.0 + np.random.default_rng(0).standard_normal((3, 2, SEEDS))
    _, p = supported(stated, differences, Multiplicity(by="holm"))
    false_discovery = scipy.stats.false_discovery_control(signflip_p(differences), axis=1)
    np.testing.assert_allclose(p, false_discovery)
    assert (p < holm_p(signflip_p(differences))).any()


@pytest.mark.parametrize("contrast", [("a",), ("a", "baseline")])
def test_the_p_of_no_collapse_at_any_seed_counts_each_arm_that_might(contrast):
    ends = {"metric": "", "endpoint": "collapsed", "smallest_effect": 0.35}
    stated = {"a": hypothesis(**ends, direction="holds", contrast=contrast)}
    _, p = supported(stated, np.zeros((1, 1, 8)), Multiplicity())
    assert p[0, 0] == pytest.approx(len(contrast) * 0.65**8)
