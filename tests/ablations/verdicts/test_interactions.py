"""Interactions of two factors: a difference of differences, over all cells of a factorial."""

import re
from pathlib import Path

import numpy as np
import pytest

from ablations.hypothesis import Hypothesis
from ablations.study.loading import load_study
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import judge
from trainers.errors import StudyError

METRIC = "globality/contrast/gyration"

STUDY = """
name: interactions
recipe: digits_tiny
seeds: 8
factorial:
  - [baseline, loss_on_patches, loss_on_both]
  - [baseline, registers_4]
  - [baseline, cls_position_none, cls_position_tied]
hypotheses:
  h: {metric: globality/contrast/gyration, direction: rises, smallest_effect: 0.5, %s}
"""

PAIRS = "[[loss_on_patches, baseline], [registers_4, baseline]]"


def loaded(tmp_path: Path, text: str):
    path = tmp_path / "study.yaml"
    path.write_text(STUDY % text)
    return load_study(path)


def test_its_weights_are_written_out_over_the_cells_of_the_other_factor(tmp_path: Path):
    hypothesis = loaded(tmp_path, f"interaction: {PAIRS}").hypotheses["h"]
    third = {"": 1 / 3, "+cls_position_none": 1 / 3, "+cls_position_tied": 1 / 3}
    expected = {}
    for start, sign in (("loss_on_patches+registers_4", 1), ("loss_on_patches", -1)):
        expected |= {start + end: sign * weight for end, weight in third.items()}
    for start, sign in (("registers_4", -1), ("baseline", 1)):
        for end, weight in third.items():
            name = end[1:] if start == "baseline" and end else start + end
            expected[name] = sign * weight
    assert hypothesis.weights == pytest.approx(expected)
    assert hypothesis.sides == ("loss_on_patches − baseline at registers_4", "the same at baseline")
    assert Hypothesis.model_validate_json(hypothesis.model_dump_json()) == hypothesis


def test_a_planted_interaction_is_found_and_main_effects_are_none(tmp_path: Path):
    study = loaded(tmp_path, f"interaction: {PAIRS}")
    rng = np.random.default_rng(0)

    def runs(interaction):
        found = {}
        for arm, levels in study.cells.items():
            loss, registers = "loss_on_patches" in levels, "registers_4" in levels
            for seed in study.seeds:
                value = 3.0 * loss - 2.0 * registers + interaction * (loss and registers)
                value += 0.3 * rng.standard_normal()
                found[arm, seed] = Run(status="finished", start={}, end={METRIC: value})
        return found

    found = judge(study.hypotheses, {}, runs(1.5), study.seeds)["h"]
    assert found.label == "supported"
    assert found.mean == pytest.approx(1.5, abs=0.25)
    none = judge(study.hypotheses, {}, runs(0.0), study.seeds)["h"]
    assert none.label == "refuted"
    assert none.mean == pytest.approx(0.0, abs=0.25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"interaction: {PAIRS}, contrast: [registers_4, baseline]", "given together; leave one"),
        (f"interaction: {PAIRS}, over: cells", "interaction is over all cells"),
        (f"interaction: {PAIRS}, control: registers_4", "control of an interaction must be a"),
        (
            "interaction: [[loss_on_patches, baseline], [loss_on_both, baseline]]",
            "are levels of one factor; name two",
        ),
        (
            "interaction: [[loss_on_patches, baseline], [registers_4, cls_position_none]]",
            "no factor of the factorial has the levels registers_4 and cls_position_none",
        ),
        (
            "interaction: [[loss_on_patches, loss_on_patches], [registers_4, baseline]]",
            "interaction compares 'loss_on_patches' with itself",
        ),
        ("interaction: [[loss_on_patches, baseline]]", "hypotheses.h.interaction"),
        ("interaction: registers_4", "hypotheses.h.interaction"),
        ("alpha: 0.05", "contrast must be [arm]"),
    ],
)
def test_what_is_no_interaction_is_refused_in_one_line(tmp_path: Path, text, message):
    with pytest.raises(StudyError, match=re.escape(message)) as caught:
        loaded(tmp_path, text)
    assert all(str(tmp_path) in line for line in str(caught.value).splitlines())
    assert len(str(caught.value).splitlines()) <= 2
