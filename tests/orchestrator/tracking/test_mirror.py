"""What MLflow has of a study: one tree of runs, and no other root's."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from mlflow import MlflowClient

from dashboards.tables.derived import judged
from orchestrator.tracking.contents import over_seeds
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.store import tracking_uri
from tests.orchestrator.conftest import dinolab
from tests.orchestrator.tracking.conftest import MISSING, Trial, curve, ended, held, study_of

pytestmark = pytest.mark.filterwarnings("ignore")

TITLE = "baseline · seed 0"
TWO = {("baseline", 0): ended(0.5), ("baseline", 1): ended(0.7)}


def change(root, *statements):
    with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        for statement in statements:
            database.execute(statement)


def check_tree(client):
    """The tree of the study mini of the fixture `finished`."""
    found = held(client)
    arms = ("baseline", "cls_position_none", "loss_on_patches")
    expected = {"mini": None, **dict.fromkeys(arms, "mini")}
    expected |= {f"{arm} · seed {seed}": arm for arm in arms for seed in (0, 1)}
    assert {title: one["parent"] for title, one in found.items()} == expected
    assert {one["status"] for one in found.values()} == {"FINISHED"}
    one = found["baseline · seed 1"]
    assert one["parameters"]["seed"] == "1"
    assert one["parameters"]["model.cls_position"] == "learned"
    assert [step for step, _ in one["metrics"]["knn/cls_top1"]] == [0, 12, 24]
    assert not any("@" in name for name in one["metrics"])
    for one in found.values():
        for name, values in one["metrics"].items():
            steps = [step for step, _ in values]
            assert len(steps) == len(set(steps)), name
    seeds = [found[f"baseline · seed {seed}"]["metrics"]["knn/cls_top1"] for seed in (0, 1)]
    ((_, mean),) = found["baseline"]["metrics"]["knn/cls_top1/mean"]
    assert mean == pytest.approx(sum(values[-1][1] for values in seeds) / 2)
    (run,) = client.search_runs(
        [client.get_experiment_by_name("mini").experiment_id],
        "tags.`dinolab.arm` = '' and tags.`dinolab.key` = ''",
    )
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"report.html", "verdicts.json", "results.parquet"} <= names
    assert "figures" in names
    return found


@pytest.mark.slow
def test_a_deleted_mirror_is_made_again_equal_by_the_command(finished, tmp_path):
    root, _ = finished
    database = root / "mlflow.db"

    def mirrored():
        code, output = dinolab("mirror", root / "studies" / "mini")
        assert (code, output) == (0, f"study mini is in MLflow at sqlite:///{database}\n")
        # MLflow keeps a file open that it has read, even a deleted one: each time it reads another.
        copy = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
        shutil.copyfile(database, copy)
        return check_tree(MlflowClient(tracking_uri=f"sqlite:///{copy}"))

    # A driver waits for a minute: on a busy machine some teachers are left to the command.
    before = mirrored()
    aside = database.rename(root / "mlflow.db.before")
    try:
        assert mirrored() == before
        assert mirrored() == before
    finally:
        aside.rename(database)


def test_two_roots_of_one_study_name_do_not_mix_on_one_store(new_root, monkeypatch):
    one, other = new_root("one"), new_root("other")
    client = MlflowClient(tracking_uri=tracking_uri(one.root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(one.root))
    said = []
    for store, shift in ((one, 0.0), (other, 1.0)):
        Trial(store, "key").finish(1, curve(3, shift=shift))
        for _ in range(2):
            Mirror("mini", store, said.append).sync("key", ["baseline"], 0)
    names = {experiment.name for experiment in client.search_experiments()}
    second = names - {"Default", "other", "mini"}
    for name, shift in (("mini", 0.0), (*second, 1.0)):
        found = held(client, name)
        assert found.keys() == {"mini", "baseline", TITLE}
        assert found[TITLE]["metrics"]["knn/cls_top1"][0] == (0, shift)
    (line,) = set(said)
    assert line.startswith("MLflow experiment mini belongs to another run root: this one's is mini")


def test_the_tags_say_how_hypotheses_were_stated(store, client):
    one = {"metric": "knn/cls_top1", "direction": "rises", "smallest_effect": 0.1}
    hypotheses = {
        "rises": {**one, "contrast": ["a", "baseline"]},
        "alone": {**one, "contrast": ["a"]},
    }
    runs = {(arm, 0): ended(0.5) for arm in ("baseline", "a")}
    study = study_of(runs, store, hypotheses, known={"0-0": "0" * 64})
    Mirror("mini", store, print).finish(study, judged(study))
    tags = {title: one["tags"] for title, one in held(client).items()}
    assert tags["mini"]["dinolab.stated"] == "exploratory: rises; confirmatory: alone"
    assert tags["mini"]["dinolab.registration"] == f"1 {study.entry.digest}"
    assert tags["baseline"]["dinolab.stated"] == "exploratory: rises"
    assert tags["a"]["dinolab.stated"] == "exploratory: rises; confirmatory: alone"


def test_a_moved_root_goes_on_in_its_own_experiment(store, client, tmp_path):
    Trial(store, "key").segment(1, curve(3))
    Mirror("mini", store, print).sync("key", ["baseline"], 0)
    moved = type(store)(store.root.rename(tmp_path / "elsewhere"))
    Trial(moved, "key").finish(1, curve(5))
    Mirror("mini", moved, print).sync("key", ["baseline"], 0)
    found = held(MlflowClient(tracking_uri=tracking_uri(moved.root)))
    assert found.keys() == {"mini", "baseline", TITLE}
    assert len(found[TITLE]["metrics"]["loss/total"]) == 6


def test_parameters_that_are_missing_are_logged(store, client):
    trial = Trial(store, "key")
    trial.segment(1, curve(3))
    mirror = Mirror("mini", store, print)
    mirror.sync("key", ["baseline"], 0)
    before = held(client)[TITLE]["parameters"]
    change(store.root, "DELETE FROM params WHERE key LIKE 'model.%'")
    Mirror("mini", store, print).sync("key", ["baseline"], 0)
    assert held(client)[TITLE]["parameters"] == before
    assert before["model.depth"]


def test_a_failed_trial_is_failed_with_its_reason_until_it_goes_on(store, client):
    trial = Trial(store, "key")
    trial.segment(1, curve(3))
    trial.fail(1, "the disk is full")
    mirror = Mirror("mini", store, print)
    mirror.sync("key", ["baseline"], 0)
    one = held(client)[TITLE]
    assert one["status"] == "FAILED"
    assert one["tags"]["dinolab.status"] == "failed"
    assert one["tags"]["dinolab.reason"] == "the disk is full"
    trial.segment(2, curve(4))
    mirror.sync("key", ["baseline"], 0)
    one = held(client)[TITLE]
    assert (one["status"], one["tags"]["dinolab.reason"]) == ("RUNNING", "")
    trial.finish(2, curve(5))
    Mirror("mini", store, print).sync("key", ["baseline"], 0)
    assert held(client)[TITLE]["status"] == "FINISHED"


def test_a_trial_that_failed_before_its_first_record_and_one_that_diverged_are_failed(
    store, client
):
    Trial(store, "early").fail(1, "no such image")
    Trial(store, "late").finish(1, curve(3), status="diverged")
    mirror = Mirror("mini", store, print)
    mirror.sync("early", ["baseline"], 0)
    mirror.sync("late", ["baseline"], 1)
    found = held(client)
    assert [found[f"baseline · seed {n}"]["status"] for n in (0, 1)] == ["FAILED", "FAILED"]


def test_a_trial_that_was_trained_anew_is_a_run_of_its_own_values(store, client):
    trial = Trial(store, "key")
    trial.finish(1, curve(5))
    Mirror("mini", store, print).sync("key", ["baseline"], 0)
    store.delete("trials/key/result.json")
    trial.finish(2, curve(5, shift=1.0))
    Mirror("mini", store, print).sync("key", ["baseline"], 0)
    assert [value for _, value in held(client)[TITLE]["metrics"]["knn/cls_top1"]] == [
        step / 7 + 1 for step in range(6)
    ]


def test_means_are_over_runs_that_came_to_their_end_and_over_numbers_that_have_one():
    means = over_seeds([ended(0.5), ended(0.7)])
    assert means == pytest.approx({"knn/cls_top1/mean": 0.6, "knn/cls_top1/sd": 0.02**0.5})
    assert over_seeds([ended(0.5)]) == {"knn/cls_top1/mean": 0.5}


def test_a_missing_run_is_in_no_mean_and_means_are_logged_once(store, client):
    part = study_of({("baseline", 0): ended(0.5), ("baseline", 1): MISSING}, store)
    for _ in range(2):
        Mirror("mini", store, print).finish(part, judged(part))
    found = held(client)
    assert found["baseline"]["metrics"] == {"knn/cls_top1/mean": [(0, 0.5)]}
    assert found["baseline"]["tags"]["dinolab.seeds"] == "1"
    assert [found[title]["status"] for title in ("mini", "baseline")] == ["FAILED", "FAILED"]
    trial = Trial(store, "key")
    trial.finish(1, curve(3))
    mirror = Mirror("mini", store, print)
    mirror.sync("key", ["baseline"], 0)
    whole = study_of(TWO, store)
    for _ in range(2):
        mirror.finish(whole, judged(whole))
    found = held(client)
    assert found["baseline"]["metrics"]["knn/cls_top1/mean"] == [(0, pytest.approx(0.6))]
    assert [found[title]["status"] for title in ("mini", "baseline")] == ["FINISHED", "FINISHED"]
    # Its arm is another run now.
    assert found[TITLE]["parent"] == "baseline"


def test_an_experiment_that_was_deleted_for_good_is_made_again(store, client):
    Trial(store, "key").finish(1, curve(3))
    Mirror("mini", store, print).sync("key", ["baseline"], 0)
    before = held(client)
    client.delete_experiment(client.get_experiment_by_name("mini").experiment_id)
    tables = ("metrics", "latest_metrics", "params", "tags", "runs", "experiment_tags")
    change(
        store.root,
        "PRAGMA foreign_keys = OFF",
        *(f"DELETE FROM {table}" for table in tables),
        "DELETE FROM experiments WHERE name = 'mini'",
    )
    Mirror("mini", store, print).sync("key", ["baseline"], 0)
    assert held(client) == before
