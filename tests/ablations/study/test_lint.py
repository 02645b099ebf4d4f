"""What is said of a study before anything runs."""

from dataclasses import replace
from pathlib import Path

import pytest

import ablations.studies
from ablations.spec import Claim, Hypothesis, Multiplicity
from ablations.study.lint import lint, lint_arms, lint_effects
from ablations.study.loading import load_study
from ablations.verdicts.evidence import Run

DEMO = Path(next(iter(ablations.studies.__path__))) / "demo.yaml"


def hypothesis(arm="a", **changes):
    stated = {"metric": "m", "contrast": (arm, "baseline"), "direction": "rises",
              "smallest_effect": 0.5, "family": "f"}  # fmt: skip
    return Hypothesis(**{**stated, **changes})


@pytest.fixture
def said(tmp_path):
    """The notes on the demo with other hypotheses, claims and a number of seeds."""
    study = load_study(DEMO)

    def call(hypotheses, claims=None, seeds=8, by="max-t"):
        changed = replace(
            study,
            hypotheses=hypotheses,
            claims=claims or {},
            seeds=tuple(range(seeds)),
            multiplicity=Multiplicity(by=by),
        )
        return lint(changed)

    return call


def test_there_is_nothing_to_say_of_pairs_of_arms(said):
    control = hypothesis("c", direction="holds", control="far")
    either = hypothesis("b", direction="differs")
    assert said({"a": hypothesis("a"), "b": either, "c": control}) == []


def test_too_few_seeds_are_said(said):
    (line,) = said({"a": hypothesis()}, seeds=3)
    assert line.startswith("3 seeds: every verdict will be inconclusive; 6 is the fewest")


def test_an_alpha_that_seeds_cannot_attain_is_said_with_seeds_that_can(said):
    assert said({"a": hypothesis(alpha=0.01, family="g"), "b": hypothesis()}, seeds=7) == [
        "a: the least p of 7 seeds, 0.016, is above alpha 0.01; 8 seeds can"
    ]
    assert said({"a": hypothesis(alpha=0.01, test="t")}, seeds=7) == []
    (line,) = said({"a": hypothesis(alpha=1e-6)}, seeds=20)
    assert line.endswith("is above alpha 1e-06; no number of sign flips can")


def test_holm_needs_more_seeds_than_max_t_and_a_fixed_sequence(said):
    stated = {name: hypothesis(name) for name in "abcd"}
    assert said(stated, seeds=6) == said(stated, seeds=6, by="fixed-sequence") == []
    assert said(stated, seeds=6, by="holm") == [
        "a, b, c, d: the least p of 6 seeds, 0.12 (Holm over 4), is above alpha 0.05; 8 seeds can"
    ]
    mixed = {**stated, "e": hypothesis("e", test="t")}
    (line,) = said(mixed, seeds=6)
    assert line.startswith("a, b, c, d: the least p of 6 seeds, 0.16 (Holm over 5)")


def test_no_change_without_a_control_is_said_once(said):
    stated = {name: hypothesis(name, direction="holds") for name in "ab"}
    (line,) = said(stated)
    assert line.startswith("a, b: can never be supported")


def test_mixed_alphas_of_a_family_are_said(said):
    (line,) = said({"a": hypothesis(), "b": hypothesis("b", alpha=0.1)})
    assert line.startswith("family f: has hypotheses at alpha 0.05 and 0.1")
    assert said({"a": hypothesis(), "b": hypothesis("b", alpha=0.1, family="g")}) == []


@pytest.mark.parametrize(("rule", "lines"), [("all", 1), ("any", 1), ("a", 0)])
def test_a_claim_that_families_split_is_said(said, rule, lines):
    stated = {"a": hypothesis(), "b": hypothesis("b", family="g")}
    claims = {"one": Claim(text="", hypotheses=("a", "b"), rule=rule)}
    found = said(stated, claims)
    assert len(found) == lines
    start = "claim one: its hypotheses are in 2 families (f, g)"
    assert all(line.startswith(start) for line in found)


@pytest.mark.parametrize(
    ("changes", "what"),
    [({}, "a value against 0"), ({"minus_start": True}, "a value against the same run's at step 0"),
     ({"test": "t"}, ""), ({"direction": "holds", "control": "far"}, "")],
)  # fmt: skip
def test_a_contrast_that_nothing_makes_symmetric_is_said(said, changes, what):
    found = said({"a": hypothesis(contrast=("baseline",), **changes)})
    assert len(found) == bool(what)
    assert all(f"a: {what} is no pair of like with like" in line for line in found)
    weighted = hypothesis(contrast={"a": 0.5, "b": 0.5}, **changes)
    assert len(said({"a": weighted})) == len(found)


def test_arms_that_are_the_same_trials_are_said_with_what_they_blind():
    study = load_study(DEMO)
    tied = ("baseline", "cls_position_tied")
    assert lint_arms(study, [tied], []) == [
        "arms baseline and cls_position_tied are the same trials, so tied_is_less_global can only "
        "show 0"
    ]
    (line,) = lint_arms(study, [], ["loss_on_patches"])
    assert line.startswith("loss_on_patches: differ from the baseline in more than they change")


def test_a_smallest_effect_above_all_that_a_pilot_moves_is_said():
    values = {"baseline": 0.0, "a": 0.1, "b": 0.3}
    runs = {
        (arm, seed): Run(status="finished", start={}, end={"m": value + seed})
        for arm, value in values.items()
        for seed in range(3)
    }
    stated = {"small": hypothesis("a", smallest_effect=0.2), "large": hypothesis("a")}
    (line,) = lint_effects(stated, runs, range(3))
    assert line.startswith("large: smallest effect 0.5 is more than anything in the pilot moves m")
    assert "b, by 0.3" in line
    assert lint_effects({"other": hypothesis("x")}, runs, range(3)) == []
