"""What was stated otherwise when its results came is a deviation, wherever it is stated anew."""

import pytest

from dashboards.verification.study import verify_study
from orchestrator.registration import Statement
from tests.orchestrator.cli.test_registration import CHANGES, STUDY, finish, planned
from tests.orchestrator.cli.test_registration import changed as changed
from tests.orchestrator.cli.test_registration import made as made
from tests.orchestrator.cli.test_registration import root as root
from tests.orchestrator.tracking.conftest import Trial
from trainers.system.store import LocalStore

TURNED = "turned round (direction rises -> falls)"
KNOWING = "knowing 12 results"
SECOND = "studies/cls/registrations/0002.json"
AGAIN = "studies/again/registrations/0001.json"
HYPOTHESES = STUDY[STUDY.index("hypotheses:") :]
SEEDS = ("[0, 1, 2, 3, 4, 5]", "[0, 1, 2, 3, 4, 5, 6, 7]")
LOOKS = ("set: {steps: 500}", "set: {steps: 500}\nlooks: [6, 8]\nspending: obf")
REVERSED = ("[0, 1, 2, 3, 4, 5, 6, 7]", "[7, 6, 5, 4, 3, 2, 1, 0]")
ORDER = (
    "seeds were put in another order (0, 1, 2, 3, 4, 5, 6, 7 -> 7, 6, 5, 4, 3, 2, 1, 0), so that "
    "others count at a look"
)


def deviations(root, name="cls"):
    found = verify_study(LocalStore(root), name, {}).findings
    return [f"{one.where}: {one.what}" for one in found if one.kind == "deviated"]


def state(path, root, tmp_path):
    """Register a study under another name; nothing of it is trained."""
    return Statement(*planned(path, tmp_path), LocalStore(root)).register()


IN_PLACE = {
    "direction": (CHANGES["direction"], f"hypothesis none_helps was {TURNED}"),
    "contrast": (
        ("[none, baseline]", "[baseline, none]"),
        "hypothesis none_helps was turned round (contrast none, baseline -> baseline, none)",
    ),
    "metric": (
        ("knn/cls_top1", "loss/total"),
        "hypothesis none_helps was redefined (metric knn/cls_top1 -> loss/total)",
    ),
    "smallest effect": (
        CHANGES["smallest effect"],
        "hypothesis none_helps was redefined (smallest_effect 0.02 -> 0.005)",
    ),
    "alpha": (CHANGES["alpha"], "hypothesis none_helps was redefined (alpha 0.05 -> 0.2)"),
    "claim": (
        CHANGES["claim"],
        "claim needless was redefined (text [CLS] needs no position -> [CLS] needs a position)",
    ),
    "gate": (
        (
            "claims:",
            "gates:\n  learns: {arms: [baseline, none], metric: loss/total, at_least: 9}\nclaims:",
        ),
        "gate learns was added",
    ),
    "multiplicity": (
        ("claims:", "multiplicity: {by: holm}\nclaims:"),
        "how p-values are adjusted was redefined",
    ),
}


@pytest.mark.parametrize("what", IN_PLACE)
def test_in_place_it_is_a_deviation(dinolab, root, changed, what):
    change, line = IN_PLACE[what]
    path = changed(change)
    assert dinolab("amend", path, "--root", root, "--reason", "so it was meant")[0] == 0
    assert deviations(root) == [f"{SECOND}: {line}, {KNOWING}"]


def test_with_runs_under_way_it_is_a_deviation(changed, tmp_path, dinolab):
    store = LocalStore(tmp_path / "runs", make=True)
    path = tmp_path / "first.yaml"
    path.write_text(STUDY)
    plan, images = planned(path, tmp_path)
    Statement(plan, images, store).register()
    Trial(store, plan.trials[0].key).segment(1, {0: {"knn/cls_top1": 0.3}})
    path = changed(CHANGES["direction"])
    assert dinolab("amend", path, "--root", store.root, "--reason", "so")[0] == 0
    what = f"hypothesis none_helps was {TURNED}, with 1 run under way"
    assert deviations(store.root) == [f"{SECOND}: {what}"]


def test_the_same_said_another_way_is_none(dinolab, root, changed):
    path = changed(CHANGES["direction"], ("[none, baseline]", "[baseline, none]"))
    assert dinolab("amend", path, "--root", root, "--reason", "clearer")[0] == 0
    assert deviations(root) == []


def test_turned_round_and_back_it_is_as_it_was(dinolab, root, made, changed):
    for path in (changed(CHANGES["direction"]), made[1]):
        assert dinolab("amend", path, "--root", root, "--reason", "so")[0] == 0
    assert deviations(root) == []


def test_under_another_name_it_is_a_deviation(dinolab, root, changed):
    path = changed(("none_helps", "none_hurts"), CHANGES["direction"])
    assert dinolab("amend", path, "--root", root, "--reason", "clearer")[0] == 0
    found = deviations(root)
    assert f"{SECOND}: hypothesis none_helps was left out, {KNOWING}" in found
    assert f"{SECOND}: hypothesis none_hurts is none_helps {TURNED}, {KNOWING}" in found


def test_beside_what_it_was_it_is_a_deviation(dinolab, root, changed):
    both = HYPOTHESES[: HYPOTHESES.index("claims:")].removeprefix("hypotheses:\n")
    other = both.replace("none_helps", "none_hurts").replace("rises", "falls")
    path = changed(("claims:", f"{other}claims:"))
    assert dinolab("amend", path, "--root", root, "--reason", "also")[0] == 0
    what = f"hypothesis none_hurts is none_helps {TURNED}"
    assert deviations(root) == [f"{SECOND}: {what}, {KNOWING}"]


@pytest.mark.parametrize("name", ["none_helps", "none_hurts"])
def test_in_another_study_it_is_a_deviation(root, changed, tmp_path, name):
    path = changed(("name: cls", "name: again"), ("none_helps", name), CHANGES["direction"])
    state(path, root, tmp_path)
    what = f"hypothesis {name} is none_helps of study cls (registration 1) {TURNED}"
    assert deviations(root, "again") == [f"{AGAIN}: {what}, {KNOWING}"]
    assert deviations(root) == []


def test_with_the_names_of_its_arms_exchanged_it_is_a_deviation(changed, tmp_path):
    arms = ("none: {model.cls_position: none}", "tied: {model.cls_position: tied}")
    both = f"{arms[0]}\n  - {arms[1]}"
    exchanged = both.replace("none:", "x:").replace("tied:", "none:").replace("x:", "tied:")
    between = ("[none, baseline]", "[none, tied]")
    plan, images = planned(changed((arms[0], both), between), tmp_path)
    store = LocalStore(tmp_path / "arms", make=True)
    finish(store, plan, Statement(plan, images, store).register())
    path = changed(("name: cls", "name: again"), (arms[0], exchanged), between)
    state(path, store.root, tmp_path)
    what = (
        "none_helps is none_helps of study cls (registration 1) turned round (its arms are others)"
    )
    assert deviations(store.root, "again") == [f"{AGAIN}: hypothesis {what}, {KNOWING}"]


EXCHANGED = (
    ("name: cls", "name: again"),
    ("set: {steps: 500}", "set: {steps: 500, model.cls_position: none}"),
    ("none: {model.cls_position: none}", "some: {model.cls_position: learned}"),
    ("none_helps", "some_helps"),
)
"""The same two arms, of which each is what the other was: base, and change."""


def test_with_base_and_arm_exchanged_it_is_a_deviation(root, changed, tmp_path):
    between = ("[none, baseline]", "[some, baseline]")
    assert len(state(changed(*EXCHANGED, between), root, tmp_path).known) == 12
    what = (
        "hypothesis some_helps is none_helps of study cls (registration 1) turned round "
        "(contrast none, baseline -> some, baseline)"
    )
    assert deviations(root, "again") == [f"{AGAIN}: {what}, {KNOWING}"]


@pytest.mark.parametrize("between", ["[baseline, some]", "[some, baseline]"])
def test_the_same_of_base_and_arm_exchanged_is_none(root, changed, tmp_path, between):
    said = [("[none, baseline]", between)]
    said += [CHANGES["direction"]] if between.startswith("[some") else []
    state(changed(*EXCHANGED, *said), root, tmp_path)
    assert deviations(root, "again") == []


def test_against_what_was_in_force_and_not_what_was_stated_before_it(changed, tmp_path):
    store = LocalStore(tmp_path / "runs", make=True)
    falling = changed(CHANGES["direction"])
    state(falling, store.root, tmp_path)
    path = tmp_path / "rising.yaml"
    path.write_text(STUDY)
    plan, images = planned(path, tmp_path)
    finish(store, plan, Statement(plan, images, store).amend("before any result"))
    assert deviations(store.root) == []
    state(changed(("name: cls", "name: again"), CHANGES["direction"]), store.root, tmp_path)
    (found,) = deviations(store.root, "again")
    assert f"none_helps of study cls (registration 2) {TURNED}" in found


@pytest.mark.parametrize("change", [("rises", "rises"), ("knn/cls_top1", "loss/total")])
def test_another_study_that_asks_the_same_or_something_else_is_none(
    root, changed, tmp_path, change
):
    state(changed(("name: cls", "name: again"), ("none_helps", "other"), change), root, tmp_path)
    assert deviations(root, "again") == []


def test_other_studies_whose_trials_are_others_are_not_compared(root, changed, tmp_path):
    path = changed(("name: cls", "name: again"), CHANGES["direction"], CHANGES["steps"])
    state(path, root, tmp_path)
    assert deviations(root, "again") == []


@pytest.fixture
def looked(changed, tmp_path):
    """A run root with the results of that study, which has two looks."""
    store = LocalStore(tmp_path / "looked", make=True)
    plan, images = planned(changed(SEEDS, LOOKS), tmp_path)
    finish(store, plan, Statement(plan, images, store).register())
    return store.root


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (REVERSED, ORDER),
        (("looks: [6, 8]", "looks: [7, 8]"), "looks were redefined"),
        (("spending: obf", "spending: pocock"), "looks were redefined"),
    ],
)
def test_other_looks_knowing_results_are_a_deviation(
    dinolab, looked, changed, tmp_path, change, line
):
    path = changed(SEEDS, LOOKS, change)
    assert dinolab("amend", path, "--root", looked, "--reason", "so")[0] == 0
    assert deviations(looked) == [f"{SECOND}: {line}, knowing 16 results"]


@pytest.mark.parametrize(("change", "line"), [(REVERSED, ORDER), (("", ""), "")])
def test_other_looks_under_another_name_are_a_deviation(looked, changed, tmp_path, change, line):
    state(changed(("name: cls", "name: again"), SEEDS, LOOKS, change), looked, tmp_path)
    against = f"{AGAIN}: {line}, against study cls, knowing 16 results"
    assert deviations(looked, "again") == ([against] if line else [])


def test_the_order_of_seeds_without_looks_is_no_deviation(dinolab, root, changed):
    path = changed(("[0, 1, 2, 3, 4, 5]", "[5, 4, 3, 2, 1, 0]"))
    assert dinolab("amend", path, "--root", root, "--reason", "so")[0] == 0
    assert deviations(root) == []


def test_looks_at_results_that_a_study_without_looks_has_are_a_deviation(root, changed, tmp_path):
    looks = ("set: {steps: 500}", "set: {steps: 500}\nlooks: [6]\nspending: obf")
    state(changed(("name: cls", "name: again"), looks), root, tmp_path)
    line = "looks were redefined, against study cls"
    assert deviations(root, "again") == [f"{AGAIN}: {line}, {KNOWING}"]


def test_looks_of_a_study_that_shares_only_the_baseline_are_none(root, changed, tmp_path):
    arms = ("none: {model.cls_position: none}", "tied: {model.cls_position: tied}")
    other = (("name: cls", "name: again"), arms, ("[none, baseline]", "[tied, baseline]"))
    entry = state(changed(*other, SEEDS, LOOKS), root, tmp_path)
    assert len(entry.known) == 6
    assert deviations(root, "again") == []


def test_seeds_in_another_order_than_in_a_study_that_shares_the_baseline_are_none(
    looked, changed, tmp_path
):
    arms = ("none: {model.cls_position: none}", "tied: {model.cls_position: tied}")
    other = (("name: cls", "name: again"), arms, ("[none, baseline]", "[tied, baseline]"))
    assert len(state(changed(*other, SEEDS, LOOKS, REVERSED), looked, tmp_path).known) == 8
    assert deviations(looked, "again") == []


def begun(tmp_path):
    """A run root: seed 0 of both arms trained outside a study, and the study then stated."""
    store = LocalStore(tmp_path / "begun", make=True)
    path = tmp_path / "begun.yaml"
    path.write_text(STUDY)
    plan, images = planned(path, tmp_path)
    for trial in plan.trials:
        if trial.seed == 0:
            ends = {0: {"knn/cls_top1": 0.3}, 500: {"knn/cls_top1": 0.7}}
            Trial(store, trial.key).finish(1, ends, registrations=[""])
    assert len(Statement(plan, images, store).register().known) == 2
    return store.root


def test_seeds_beside_one_that_was_trained_outside_a_study_are_reuse(tmp_path):
    assert deviations(begun(tmp_path)) == []


def test_what_another_study_states_later_makes_no_deviation_of_reuse(tmp_path, changed):
    root = begun(tmp_path)
    state(changed(("name: cls", "name: again")), root, tmp_path)
    assert deviations(root) == []
