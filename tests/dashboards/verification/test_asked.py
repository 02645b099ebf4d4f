"""A result that no registration of its root asked for is found; what is reused is said."""

import shutil
from pathlib import Path

import pytest

from dashboards.tables.chain import read_entry
from dashboards.verification.study import verify_study
from orchestrator.registration import Statement
from tests.dashboards.verification.conftest import NAME, SEEDS, Little, Root, resealed
from tests.registered import restated
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import Store, open_store

RUNS = 3 * SEEDS
ELSEWHERE = "reused, trained under a registration that this root has not"
IN_ORDER = "; ".join(
    f"{arm}: seeds 0, 1, 2" for arm in ("baseline", "cls_position_none", "one_crop_more")
)
NOT_KNOWN = "registration 1, which stated this trial, did not know it: it may have been seen before"


@pytest.fixture
def stated(little_study: Little, tmp_path: Path) -> Root:
    """Another root, in which the study is registered and nothing is trained."""
    root = Root(open_store(tmp_path / "stated", make=True))
    Statement(*little_study.plan(SEEDS), root.store).register()
    return root


def digest(store: Store, name: str = NAME) -> str:
    return read_entry(store, name).digest


def unasked(root: Root, name: str = NAME) -> list[str]:
    """What is found of results, without the place."""
    found = verify_study(root.store, name, {}).findings
    return [f"{one.kind}: {one.what}" for one in found if one.where.endswith("/result.json")]


def test_every_result_names_the_registration_that_asked_for_it(root: Root) -> None:
    trials = [StoredTrial(root.store, key) for key in root.store.names("trials")]
    assert [(one.finished() or {})["registrations"] for one in trials] == [[digest(root.store)]] * 9


def test_neither_key_nor_values_depend_on_who_asked(little_study: Little, tmp_path: Path) -> None:
    plan, images = little_study.plan(1)
    stores = [open_store(tmp_path / name, make=True) for name in ("asked", "outside")]
    little_study.run(stores[0], plan, images, "f" * 64)
    little_study.run(stores[1], plan, images)
    for trial in plan.trials:
        one, other = (StoredTrial(store, trial.key).finished() or {} for store in stores)
        assert (one["registrations"], other["registrations"]) == (["f" * 64], [""])
        assert one["chain"] == other["chain"]
        saved = [name for name in one["files"] if name.endswith(".safetensors")]
        assert saved
        assert [one["files"][name] for name in saved] == [other["files"][name] for name in saved]


def test_results_copied_in_after_the_statement_are_found(root: Root, stated: Root) -> None:
    shutil.copytree(root.folder / "trials", stated.folder / "trials")
    # The two registrations differ in what they say of the clock, or not even in that.
    restated(
        stated.folder / "studies" / NAME / "registrations" / "0001.json",
        lambda content: content.update(created="2026-01-01T00:00:00+00:00"),
    )
    how = f"{ELSEWHERE} (sha256 {digest(root.store)[:12]})"
    assert unasked(stated) == [f"deviated: {how}; {NOT_KNOWN}"] * RUNS


def test_results_that_were_there_at_the_statement_are_reused_wherever_they_come_from(
    root: Root, little_study: Little, tmp_path: Path
) -> None:
    store = open_store(tmp_path / "copied", make=True)
    shutil.copytree(root.folder / "trials", tmp_path / "copied" / "trials")
    Statement(*little_study.plan(SEEDS), store).register()
    assert unasked(Root(store)) == []
    found = Root(store).verified()
    assert found.notes[0] == f"{RUNS} results are {ELSEWHERE} ({IN_ORDER})"


def test_a_run_that_was_copied_in_half_done_and_ended_here_is_found(
    root: Root, stated: Root, little_study: Little
) -> None:
    restated(
        stated.folder / "studies" / NAME / "registrations" / "0001.json",
        lambda content: content.update(created="2026-01-01T00:00:00+00:00"),
    )
    key = root.key("baseline", 1)
    shutil.copytree(root.trial("baseline", 1), stated.trial("baseline", 1))
    (stated.trial("baseline", 1) / "result.json").unlink()
    plan, images = little_study.plan(SEEDS)
    little_study.run(stated.store, plan, images, digest(stated.store))
    result = StoredTrial(stated.store, key).finished() or {}
    assert result["registrations"] == [digest(root.store), digest(stated.store)]
    (line,) = unasked(stated)
    assert line.startswith(f"deviated: {ELSEWHERE}")


def test_what_was_trained_outside_a_study_before_it_was_stated_is_said_to_be_reused(
    little_study: Little, tmp_path: Path
) -> None:
    root = Root(open_store(tmp_path / "runs", make=True))
    plan, images = little_study.plan(SEEDS)
    little_study.run(root.store, plan, images)
    Statement(plan, images, root.store).register()
    assert unasked(root) == []
    found = root.verified()
    assert found.notes[0] == f"{RUNS} results are reused, trained outside a study ({IN_ORDER})"


def test_what_was_trained_outside_a_study_unknown_to_its_registration_is_found(
    stated: Root, little_study: Little
) -> None:
    little_study.run(stated.store, *little_study.plan(1))
    assert unasked(stated) == [f"deviated: reused, trained outside a study; {NOT_KNOWN}"] * 3


def test_what_only_a_later_registration_knew_is_found(
    root: Root, stated: Root, little_study: Little
) -> None:
    shutil.copytree(root.folder / "trials", stated.folder / "trials")
    for arm in ("baseline", "cls_position_none", "one_crop_more"):
        for seed in range(SEEDS):
            resealed(stated.trial(arm, seed), lambda result: result.pop("registrations"))
    little_study.amend(stated.store, SEEDS, lambda text: text.replace("0.05", "0.06"))
    assert unasked(stated) == [f"deviated: reused, trained outside a study; {NOT_KNOWN}"] * RUNS


def test_a_trial_that_is_shared_may_be_trained_for_the_other_study(
    stated: Root, little_study: Little
) -> None:
    def renamed(text: str) -> str:
        return text.replace("name: little", "name: other")

    little_study.train(stated.store, 1, renamed)
    found = stated.verified()
    assert found.findings == ()
    places = "baseline: seed 0; cls_position_none: seed 0; one_crop_more: seed 0"
    assert found.notes[0] == f"3 results are shared, trained for study other ({places})"
    shutil.rmtree(stated.folder / "studies" / "other")
    assert [one.split(" (")[0] for one in unasked(stated)] == [f"deviated: {ELSEWHERE}"] * 3


def test_a_registration_that_never_asked_for_a_trial_cannot_have_trained_it(
    root: Root, little_study: Little
) -> None:
    def others(text: str) -> str:
        return text.replace("name: little", "name: other").replace("seeds: 3", "seeds: [8, 9]")

    Statement(*little_study.plan(SEEDS, others), root.store).register()
    theirs = digest(root.store, "other")
    resealed(root.trial("baseline", 1), lambda result: result.update(registrations=[theirs]))
    what = "registration 1 of study other, as it says, which has no such trial"
    assert unasked(root) == [f"differs: it was trained for {what}"]


def test_a_study_of_before_whose_results_name_nothing_is_as_it_was(root: Root) -> None:
    path = root.folder / "studies" / NAME / "registrations" / "0001.json"
    restated(path, lambda content: content.pop("results_name_it"))
    resealed(root.trial("baseline", 1), lambda result: result.pop("registrations"))
    assert unasked(root) == []


def test_a_known_result_that_was_set_aside_and_trained_anew_is_no_finding(
    little_study: Little, tmp_path: Path
) -> None:
    root = Root(open_store(tmp_path / "runs", make=True))
    plan, images = little_study.plan(1)
    little_study.run(root.store, plan, images)
    Statement(plan, images, root.store).register()
    StoredTrial(root.store, plan.trials[0].key).set_aside()
    little_study.train(root.store, 1)
    assert unasked(root) == []
