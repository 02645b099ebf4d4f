"""Gates: what an arm must show to count, absolutely or over what needs no learning."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from ablations.spec import Gate, Hypothesis
from ablations.study.loading import load_study
from ablations.verdicts.evidence import Run
from ablations.verdicts.gates import measure_gates, missed_gates
from ablations.verdicts.judge import judge
from trainers.errors import StudyError
from trainers.evaluation.references import FEATURES

METRIC = "knn/cls_top1"


def runs_of(end, start=0.5, seeds=8):
    return {
        (arm, seed): Run(status="finished", start={METRIC: start}, end={METRIC: value})
        for arm, value in (("arm", end), ("baseline", 0.9))
        for seed in range(seeds)
    }


def measured(gate, end, references=None):
    found = measure_gates({"g": gate}, runs_of(end), range(8), references or {})
    return found["g"]["arm"]


@pytest.mark.parametrize(
    ("end", "over", "passes"),
    [
        (0.75, "pixels", False),
        (0.85, "pixels", True),
        (0.85, "histogram", False),
        (0.55, "step0", False),
        (0.65, "step0", True),
    ],
)
def test_a_gate_over_a_reference_asks_for_a_margin_above_it(end, over, passes):
    gate = Gate(arms=("arm",), metric=METRIC, at_least=0.1, at_least_over=over)
    found = measured(gate, end, {"pixels": 0.7, "histogram": 0.8})
    assert found.passed == passes
    assert found.reference == {"pixels": 0.7, "histogram": 0.8}.get(over)


def test_the_margin_itself_passes():
    for reference, margin in ((0.2, 0.1), (0.7, 0.1), (0.6, 0.3)):
        gate = Gate(arms=("arm",), metric=METRIC, at_least=margin, at_least_over="pixels")
        above = reference + margin + 1e-15
        assert measured(gate, above, {"pixels": reference}).passed


def test_over_step_0_is_minus_start():
    over = Gate(arms=("arm",), metric=METRIC, at_least=0.1, at_least_over="step0")
    since = Gate(arms=("arm",), metric=METRIC, at_least=0.1, minus_start=True)
    assert measured(over, 0.7) == measured(since, 0.7)


def verdict(gate, end, **given):
    hypothesis = Hypothesis(
        metric=METRIC, contrast=("arm", "baseline"), direction="falls", smallest_effect=0.01
    )
    return judge({"h": hypothesis}, {"learned": gate}, runs_of(end), range(8), **given)["h"]


def test_a_missed_reference_is_named_with_its_value():
    gate = Gate(arms=("arm",), metric=METRIC, at_least=0.1, at_least_over="pixels")
    found = verdict(gate, 0.75, references={"pixels": 0.7})
    assert found.label == "failed"
    assert found.reason == (f"gate learned: arm has mean {METRIC} 0.75, below 0.1 over pixels, 0.7")
    assert verdict(gate, 0.85, references={"pixels": 0.7}).label == "supported"


def test_a_reference_that_was_not_measured_is_missed_and_said():
    gate = Gate(arms=("arm",), metric=METRIC, at_least=0.1, at_least_over="pixels")
    found = verdict(gate, 0.99)
    assert found.label == "failed"
    assert "the pixels of the data were not measured" in found.reason


def test_each_reference_of_a_gate_is_measured():
    names = set(get_args(Gate.model_fields["at_least_over"].annotation))
    assert names == {"", "step0", *FEATURES}


def test_minus_start_and_a_reference_are_not_given_together():
    with pytest.raises(ValidationError, match="minus_start is at_least_over: step0; leave it out"):
        Gate(arms=("a",), metric=METRIC, at_least=0, minus_start=True, at_least_over="pixels")


STUDY = """
name: gates
recipe: digits_tiny
seeds: 6
gates:
  learned: {arms: [baseline], metric: %s, at_least: 0.05, at_least_over: %s}
"""


@pytest.mark.parametrize(
    ("metric", "over", "message"),
    [
        ("collapse/rankme", "pixels", "collapse/rankme is no accuracy, which pixels could be"),
        ("gap/patch", "histogram", "gap/patch is no accuracy"),
        ("loss/total", "step0", "not measured at step 0; leave at_least_over: step0 out"),
        (METRIC, "colours", "gates.learned.at_least_over"),
    ],
)
def test_a_gate_over_what_does_not_fit_is_refused(tmp_path: Path, metric, over, message):
    path = tmp_path / "study.yaml"
    path.write_text(STUDY % (metric, over))
    with pytest.raises(StudyError, match=re.escape(message)):
        load_study(path)
    path.write_text(STUDY % (METRIC, "pixels"))
    assert load_study(path).gates["learned"].reference == "pixels"


def test_exactly_what_is_asked_passes_and_the_mean_decides():
    gate = Gate(arms=("arm",), metric=METRIC, at_least=0.75)
    assert measured(gate, 0.75).passed
    assert not measured(gate, 0.75 - 1e-12).passed
    runs = {
        ("arm", seed): Run(status="finished", start={}, end={METRIC: value})
        for seed, value in enumerate((0.5, 0.75, 1.0))
    }
    assert measure_gates({"g": gate}, runs, range(3))["g"]["arm"].mean == 0.75


def test_a_skipped_run_has_nothing_to_show_and_a_missing_one_lacks_it():
    gate = Gate(arms=("arm",), metric=METRIC, at_least=0.5)
    runs = runs_of(0.75)
    runs["arm", 3] = Run(status="skipped", start={}, end={})
    assert measure_gates({"g": gate}, runs, range(8))["g"]["arm"].to_json() == {
        "mean": 0.75, "seeds_without": [], "passed": True, "reference": None,
    }  # fmt: skip
    found = measure_gates({"g": gate}, runs, range(9))["g"]["arm"]
    assert (found.seeds_without, found.passed) == ((8,), False)
    assert found.to_json()["seeds_without"] == [8]


def test_without_any_value_there_is_no_mean():
    gate = Gate(arms=("arm",), metric=METRIC, at_least=-1.0)
    found = measure_gates({"g": gate}, {}, range(2))["g"]["arm"]
    assert (found.mean, found.seeds_without, found.passed) == (None, (0, 1), False)


def test_what_ended_otherwise_is_said_once_beside_the_seeds_without_a_value():
    gate = Gate(arms=("arm",), metric=METRIC, at_least=0.5)
    runs = runs_of(0.75)
    for seed in (2, 5):
        runs["arm", seed] = Run(status="collapsed", reason="at step 9", start={}, end={})
    runs["arm", 6] = Run(status="finished", start={}, end={})
    missed = missed_gates({"g": gate}, measure_gates({"g": gate}, runs, range(8)), runs)
    assert missed == {
        "arm": [f"gate g: arm has no finite {METRIC}, seeds 2, 5, 6 (collapsed at step 9)"]
    }


@pytest.mark.parametrize("over", [{}, {"at_least_over": "pixels"}])
def test_a_gated_arm_that_a_design_has_no_run_of_yet_is_said_to_have_none(over):
    gate = Gate(arms=("arm",), metric=METRIC, at_least=0.1, **over)
    runs = {("arm", seed): Run(status="skipped", start={}, end={}) for seed in range(8)}
    found = measure_gates({"g": gate}, runs, range(8), {"pixels": 0.2})
    assert missed_gates({"g": gate}, found, runs) == {
        "arm": ["gate g: arm has no run yet at these seeds"]
    }
