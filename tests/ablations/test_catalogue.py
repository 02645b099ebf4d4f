"""Every ablation of the catalogue is valid, changes what it says, and makes another run."""

import ast
from pathlib import Path

import pytest

import ablations.catalogue
from ablations.library import library
from ablations.spec import Ablation, Arm
from tests.ablations import checks
from trainers.config import override

CATALOGUE = {
    name: known for name, known in library().items() if known.where == "the catalogue"
}  # fmt: skip
HOME = Path(next(iter(ablations.catalogue.__path__)))
ONE_BASE = sorted({str(known.load().base): name for name, known in CATALOGUE.items()}.values())


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_ablation_says_what_it_claims_where_from_and_what_is_expected(name):
    found = CATALOGUE[name].load()
    checks.check_declaration(found, name)
    assert all(arm.expectations for arm in found.arms.values())


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_ablation_asks_a_question_first(name):
    text = ast.get_docstring(ast.parse((HOME / f"{name}.py").read_text()))
    assert text.split("\n\n")[0].replace("\n", " ").endswith("?")


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_arm_changes_exactly_what_it_says(name):
    checks.check_change(CATALOGUE[name].load())


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOGUE)
def test_an_arm_trains_and_is_not_the_baseline(name, tmp_path):
    checks.check_runs(CATALOGUE[name].load(), tmp_path)


@pytest.mark.parametrize("name", ONE_BASE)
def test_a_baseline_equals_itself_bit_for_bit(name, tmp_path):
    found = CATALOGUE[name].load()
    again = checks.run(checks.base_of(found), tmp_path / "again")
    assert checks.baseline(found, tmp_path).same_as(again)


def test_an_arm_that_changes_only_what_crops_are_seen_shows(tmp_path):
    shuffled = CATALOGUE["shuffled_pixels"].load()
    before, after = (
        checks.run(override(checks.base_of(shuffled), change), tmp_path / str(len(change)))
        for change in ({}, shuffled.arms["shuffled_pixels"].change)
    )
    assert before.records[-1][1]["data/chain"] != after.records[-1][1]["data/chain"]
    assert before.records[-1][1]["loss/total"] != after.records[-1][1]["loss/total"]


def test_an_arm_that_changes_no_run_is_found(tmp_path):
    nothing = {"loss.mask_probability": 0.25}
    idle = Ablation(claim="c", source="s", arms={"idle": Arm(change=nothing)})
    with pytest.raises(AssertionError, match="idle changes nothing"):
        checks.check_runs(idle, tmp_path)


def test_the_arms_without_multicrop_differ_in_the_scale_of_global_crops_alone():
    multi, local = (
        CATALOGUE[name].load().arms[name] for name in ("no_multicrop", "no_local_crops")
    )
    assert dict(multi.change) == {**local.change, "augment.global_scale": [0.14, 1.0]}


def test_the_rotary_arms_differ_in_the_origin_alone():
    centre, corner = (CATALOGUE[name].load().arms[name] for name in ("rope_centre", "rope_corner"))
    assert dict(corner.change) == {**centre.change, "model.rotary_origin": "corner"}


def test_untrained_leaves_no_weight_of_any_loss():
    from trainers.training.step import is_trained

    found = CATALOGUE["untrained"].load()
    base = checks.base_of(found)
    assert is_trained(base)
    assert not is_trained(override(base, found.arms["untrained"].change))
