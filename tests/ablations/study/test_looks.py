"""The sequential design of a study file."""

import pytest

from ablations.design import Design
from ablations.study.loading import load_study
from trainers.errors import StudyError

STUDY = """
name: small
recipe: digits_tiny
seeds: 16
arms: [cls_position_none]
"""


def loaded(tmp_path, text, **options):
    path = tmp_path / "small.yaml"
    path.write_text(STUDY + text)
    return load_study(path, **options)


def test_looks_are_part_of_the_study_that_is_stated(tmp_path):
    assert loaded(tmp_path, "").design is None
    study = loaded(tmp_path, "looks: [8, 12, 16]\nspending: pocock\nfutility: equivalence\n")
    assert study.design == Design(looks=(8, 12, 16), spending="pocock", futility="equivalence")
    assert study.to_json()["design"] == {
        "looks": [8, 12, 16], "spending": "pocock", "futility": "equivalence",
    }  # fmt: skip


def test_looks_alone_spend_as_obrien_and_fleming(tmp_path):
    design = loaded(tmp_path, "looks: [8, 16]\n").design
    assert (design.spending, design.futility) == ("obf", "")


def test_an_e_process_looks_after_every_seed_with_which_it_can_decide(tmp_path):
    design = loaded(tmp_path, "spending: e-process\n").design
    assert design.looks == tuple(range(7, 17))


def test_a_scale_has_looks_of_its_own(tmp_path):
    text = "looks: [8, 16]\nscales: {small: {seeds: 8, looks: [6, 8]}, large: {}}\n"
    assert loaded(tmp_path, text, scale="small").design.looks == (6, 8)
    assert loaded(tmp_path, text, scale="large").design.looks == (8, 16)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("looks: [8, 12]", "the last 16, which is how many seeds there are; got [8, 12]"),
        ("looks: [12, 8, 16]", "ascending"),
        ("looks: [8, 8, 16]", "ascending"),
        ("looks: [4, 16]", "the first 6 or more"),
        ("looks: [8.5, 16]", "looks"),
        ("spending: obf", "spending: obf needs looks, such as `looks: [8, 12, 16]`"),
        ("futility: equivalence", "futility: equivalence needs looks"),
        ("looks: [8, 16]\nspending: e-process", "leave looks [8, 16] out"),
        ("looks: [8, 16]\nspending: haybittle", "spending"),
    ],
)
def test_a_design_that_cannot_be_is_one_line(tmp_path, text, line):
    with pytest.raises(StudyError) as caught:
        loaded(tmp_path, text + "\n")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_e_process_needs_enough_seeds_to_look_at(tmp_path):
    with pytest.raises(StudyError, match="needs 7 seeds or more to decide, got 6"):
        loaded(tmp_path, "scales: {one: {seeds: 6}}\nspending: e-process\n", scale="one")


def test_an_e_process_is_of_values_not_of_how_runs_end(tmp_path):
    text = """spending: e-process
hypotheses:
  collapses: {endpoint: collapsed, contrast: [cls_position_none, baseline], direction: rises,
              smallest_effect: 0.5}
"""
    with pytest.raises(StudyError, match="an endpoint is one: collapses; give looks"):
        loaded(tmp_path, text)
