"""Simulated power of sequential designs, against the judge that follows them from look to look."""

import dataclasses
import itertools

import numpy as np
import pytest

from ablations.design import Design as Looks
from ablations.spec import Claim, Hypothesis, Multiplicity
from ablations.verdicts import power, sequential_power
from ablations.verdicts.at_look import at_look
from ablations.verdicts.claims import judge_claims
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import decisive_p
from ablations.verdicts.looks import follow
from ablations.verdicts.planning import holm_sizes
from ablations.verdicts.power import claims_supported
from ablations.verdicts.sequential_power import (
    SequentialDesign,
    holm_sizes_over_looks,
    least_p_at,
)
from ablations.verdicts.spread import assumed

SMALL = (6, 8, 10)
"""Looks whose sign flips are all enumerated by the simulation too."""


def hypothesis(arm="a", **changes):
    stated = {"metric": "m", "contrast": (arm, "baseline"), "direction": "rises",
              "smallest_effect": 1.0, "family": "one"}  # fmt: skip
    return Hypothesis(**{**stated, **changes})


STATED = {
    "a": hypothesis("a", control="far"),
    "b": hypothesis("b", direction="falls", smallest_effect=0.5),
    "c": hypothesis("c", direction="differs", family="two", control="far"),
    "d": hypothesis("d", alpha=0.2, family="two"),
    "e": hypothesis("e", direction="holds", smallest_effect=1.5, control="far"),
    "f": hypothesis("f", direction="holds", smallest_effect=0.5, family="two"),
    "g": hypothesis("g", test="t", family="three"),
    "h": hypothesis("h", secondary=True),
    "i": hypothesis("i", secondary=True, family="two"),
}
EFFECTS = np.array([1.1, -0.7, 0.9, 0.3, 0.0, 1.5, 1.0, 1.1, 1.1])
CLAIMS = {
    "all": Claim(text="", hypotheses=("a", "b", "e")),
    "any": Claim(text="", hypotheses=("b", "c", "i", "e"), rule="any"),
    "one": Claim(text="", hypotheses=("a", "c"), rule="c"),
}


def design_of(looks, spending="pocock", by="max-t", stated=STATED, claims=CLAIMS, **spread):
    return SequentialDesign(
        hypotheses=stated, claims=claims, seeds=looks[-1], spread=assumed(stated, **spread),
        multiplicity=Multiplicity(by=by), arms=("baseline", "far", *stated),
        looks=Looks(looks=looks, spending=spending, futility="equivalence"),
    )  # fmt: skip


def followed(design, differences):
    """Supported, decisive p and seeds of each hypothesis of a study, and its supported claims."""
    stated = design.hypotheses
    values = {"baseline": np.zeros(design.seeds), "far": 100.0 + np.arange(design.seeds) / 100,
              **dict(zip(stated, differences, strict=True))}  # fmt: skip
    runs = {
        (arm, seed): Run(status="finished", start={}, end={"m": float(of_arm[seed])})
        for arm, of_arm in values.items()
        for seed in range(design.seeds)
    }
    found = follow(
        stated,
        {},
        runs,
        range(design.seeds),
        design.looks,
        multiplicity=design.multiplicity,
        advise=False,
    )
    verdicts = {name: one.verdict for name, one in found.items()}
    labels = {name: one.label for name, one in verdicts.items()}
    of_claims = judge_claims(design.claims, stated, labels, decisive_p(stated, verdicts))
    return (
        [label == "supported" for label in labels.values()],
        [len(one.wants) for one in found.values()],
        [one.label == "supported" for one in of_claims.values()],
    )


@pytest.mark.parametrize(
    ("spending", "by", "studies"),
    [
        ("obf", "max-t", 6),
        ("pocock", "max-t", 8),
        ("pocock", "fixed-sequence", 4),
        ("e-process", "max-t", 2),
        pytest.param("obf", "max-t", 60, marks=pytest.mark.slow),
        pytest.param("pocock", "max-t", 60, marks=pytest.mark.slow),
        pytest.param("e-process", "holm", 60, marks=pytest.mark.slow),
    ],
)
def test_a_simulated_study_is_followed_as_the_judge_follows_it(spending, by, studies):
    looks = tuple(range(7, 11)) if spending == "e-process" else SMALL
    design = design_of(looks, spending, by)
    draws = np.random.default_rng(0).standard_normal((studies, len(STATED), 10))
    differences = EFFECTS[:, None] + 0.8 * draws
    flags, p, seeds = design.followed(differences, np.random.default_rng(0))
    of_claims = claims_supported(CLAIMS, STATED, flags, p)
    expected = [followed(design, one) for one in differences]
    np.testing.assert_array_equal(flags, [labels for labels, _, _ in expected])
    np.testing.assert_array_equal(seeds, [wants for _, wants, _ in expected])
    np.testing.assert_array_equal(of_claims, [claims for _, _, claims in expected])


def test_what_is_expected_is_what_the_simulated_studies_show_on_average(monkeypatch):
    monkeypatch.setattr(power, "_AT_ONCE", 20)
    stated = {name: STATED[name] for name in ("a", "e", "g")}
    claims = {
        "any": Claim(text="", hypotheses=("a", "g"), rule="any"),
        "all": Claim(text="", hypotheses=("a", "e")),
    }
    design = dataclasses.replace(
        design_of((6, 8), stated=stated, claims=claims, in_smallest_effects=1.25),
        arms=("baseline", "far", "a", "e", "g", "of no hypothesis"),
    )
    of_20, of_10 = design.simulated(1.5, 30)
    differences = np.concatenate([of_20, of_10])
    flags, p, seeds = design.followed(differences, np.random.default_rng(1))
    found = design.expected(1.5, 30)
    assert found.power.hypotheses == pytest.approx(
        dict(zip(stated, flags.mean(axis=0), strict=True))
    )
    of_claims = claims_supported(claims, stated, flags, p).mean(axis=0)
    assert found.power.claims == pytest.approx(dict(zip(claims, of_claims, strict=True)))
    assert found.power == design.power(1.5, 30)
    assert found.seeds == pytest.approx(dict(zip(stated, seeds.mean(axis=0), strict=True)))
    a, e, g = seeds.T
    # The control is that of a and e.
    control = np.maximum(a, e)
    used = control + np.maximum(control, g) + a + e + g + 8
    assert found.saved == pytest.approx(1 - used.mean() / (6 * 8))
    assert 6 < seeds.mean() < 8
    assert 0.2 < flags.mean() < 0.8


def test_in_a_fixed_sequence_nothing_is_found_behind_what_is_not():
    stated = {"a": hypothesis("a"), "b": hypothesis("b")}
    differences = np.array([[[0.1, -0.1] * 4, [2.0] * 8], [[2.0] * 8, [2.0] * 8]])
    found = {
        by: design_of((6, 8), by=by, stated=stated, claims={}).followed(
            differences, np.random.default_rng(0)
        )
        for by in ("fixed-sequence", "holm")
    }
    assert found["fixed-sequence"][0].tolist() == [[False, False], [True, True]]
    assert found["holm"][0].tolist() == [[False, True], [True, True]]


def test_secondary_hypotheses_share_a_rate_of_false_finds():
    stated = {name: hypothesis(name, secondary=True) for name in "abc"}
    # One seed against the others: p .078 of 8 signs, of all three together.
    one = np.array([3.0] * 6 + [-0.1, -0.2])
    design = design_of((8,), stated=stated, claims={})
    flags, p, _ = design.followed(np.array([[one, one, one]]), np.random.default_rng(0))
    assert flags.all()
    assert (p <= 0.05).all()
    primary = {name: hypothesis(name) for name in "abc"}
    design = design_of((8,), stated=primary, claims={})
    flags, _, _ = design.followed(np.array([[one, one, one]]), np.random.default_rng(0))
    assert not flags.any()


@pytest.mark.parametrize(("futility", "seeds"), [("equivalence", 6), ("", 8)])
def test_what_is_equivalent_is_decided_early_only_where_the_design_says_so(futility, seeds):
    stated = {"a": hypothesis("a", control="far")}
    design = design_of((6, 8), stated=stated, claims={})
    looks = design.looks.model_copy(update={"futility": futility})
    differences = np.array([[[0.1, -0.1, 0.2, -0.1, 0.1, -0.2, 0.1, -0.1]]])
    flags, _, found = dataclasses.replace(design, looks=looks).followed(
        differences, np.random.default_rng(0)
    )
    assert (flags.tolist(), found.tolist()) == ([[False]], [[seeds]])


@pytest.mark.parametrize(
    ("by", "change", "groups", "found"),
    [
        ("holm", {"test": "t"}, 1, (0.06, 0.03, 0.02)),
        ("holm", {"test": "t"}, 2, (0.06, 0.03, 0.02, 0.015, 0.01)),
        ("benjamini-hochberg", {"test": "t"}, 1, (0.06, 0.04, 0.02)),
        ("fixed-sequence", {"test": "t"}, 1, (0.06,)),
        ("fixed-sequence", {"test": "t"}, 3, (0.06, 0.03, 0.02)),
        ("holm", {"test": "t", "direction": "holds"}, 2, (0.06, 0.03)),
        # A p of signs is at most a level only if all shares of alpha above it cross too.
        ("benjamini-hochberg", {}, 1, (0.06, 0.04, 0.03, 0.02)),
        ("holm", {}, 2, (0.06, 0.03, 0.02, 0.015, 0.012, 0.01)),
    ],
)
def test_a_p_is_compared_with_these_levels_in_a_family_of_three(by, change, groups, found):
    family = [hypothesis(arm, alpha=0.06, **change) for arm in "abc"]
    looks = Looks(looks=(6, 8), spending="obf")
    walk = sequential_power._Walk(family, looks, np.ones((1, 8)), by, groups)
    levels = walk._levels(family[0]).tolist()
    assert levels == sorted(levels, reverse=True)
    assert tuple(dict.fromkeys(round(one, 12) for one in levels)) == found


def supported_shares(design, differences):
    """How many of the studies support each hypothesis and each claim."""
    flags, p, _ = design.followed(differences, np.random.default_rng(0))
    of_claims = claims_supported(design.claims, design.hypotheses, flags, p)
    return np.hstack([flags, of_claims]).mean(axis=0)


@pytest.mark.parametrize("spending", ["obf", "pocock"])
def test_some_patterns_of_signs_find_what_all_of_them_do(spending, monkeypatch):
    stated = {"a": hypothesis("a"), "b": hypothesis("b"), "g": STATED["g"]}
    claims = {"any": Claim(text="", hypotheses=("a", "g"), rule="any")}
    design = design_of((8, 12, 16), spending, stated=stated, claims=claims)
    differences = 1.5 + 1.25 * np.random.default_rng(0).standard_normal((400, 3, 16))
    some = supported_shares(design, differences)
    monkeypatch.setattr(sequential_power, "FLIPS", 2**15)
    assert np.abs(some - supported_shares(design, differences)).max() <= 0.005


def test_patterns_of_early_looks_are_all_there_equally_often():
    flips = sequential_power._flips((8, 12, 16), np.random.default_rng(0))
    for look in (8, 12):
        up_to_sign = flips[:, :look] * flips[:, look - 1, None]
        _, counts = np.unique(up_to_sign, axis=0, return_counts=True)
        assert len(counts) == 2 ** (look - 1)
        assert np.ptp(counts) == 0


@pytest.mark.parametrize(("n", "count"), [(10, 2**9), (12, 2**11), (13, sequential_power.FLIPS)])
def test_beyond_12_seeds_some_patterns_of_signs_stand_for_all(n, count):
    assert sequential_power._flips((8, n), np.random.default_rng(0)).shape == (count, n)


def test_beyond_12_seeds_too_power_is_what_is_expected():
    stated = {"a": hypothesis("a"), "b": hypothesis("b")}
    design = design_of((8, 13), stated=stated, claims={}, in_smallest_effects=1.25)
    assert design.power(1.5, 40) == design.expected(1.5, 40).power


ENDINGS = {"metric": "", "endpoint": "collapsed", "smallest_effect": 0.5}


@pytest.mark.parametrize(
    ("spending", "change"),
    [
        *itertools.product(
            ("obf", "pocock", "e-process"), ({}, {"direction": "holds", "smallest_effect": 0.5})
        ),
        *itertools.product(("obf", "pocock"), (ENDINGS, {**ENDINGS, "paired": False})),
    ],
)
def test_the_least_p_at_a_look_is_that_of_runs_that_say_the_same_at_every_seed(spending, change):
    one = hypothesis(alpha=0.2, **change)
    holds = one.direction == "holds"
    value = 0.0 if holds else 9.0
    runs = {
        (arm, seed): Run(
            status="collapsed" if one.endpoint and arm == "a" else "finished",
            start={}, end={"m": value if arm == "a" else 0.0},
        )
        for arm in ("a", "baseline")
        for seed in range(8)
    }  # fmt: skip
    design = Looks(looks=(6, 8), spending=spending)
    seen = [at_look(one, runs, tuple(range(n)), design).summary for n in design.looks]
    least = least_p_at(one, design)
    assert least == pytest.approx([found.p_equivalence if holds else found.p for found in seen])
    of_three = least if holds else [min(1.0, 3 * p) for p in least]
    assert least_p_at(one, design, 3) == pytest.approx(of_three)


def test_a_t_test_has_no_least_p_at_a_look():
    assert least_p_at(hypothesis(test="t"), Looks(looks=(6, 8), spending="obf"), 3) == [0.0, 0.0]


def test_over_looks_a_family_pays_by_holm_where_max_t_is_asked_for():
    stated = {name: STATED[name] for name in ("a", "b", "e")}
    sizes = {
        by: holm_sizes_over_looks(stated, Multiplicity(by=by))
        for by in ("max-t", "holm", "fixed-sequence")
    }
    assert sizes["max-t"] == sizes["holm"] == {"a": 2, "b": 2, "e": 1}
    assert sizes["fixed-sequence"] == {"a": 1, "b": 1, "e": 1}
    assert holm_sizes(stated, Multiplicity()) == {"a": 1, "b": 1, "e": 1}
