"""Pictures of attention in MLflow: one a step, once, under the names that MLflow shows."""

import functools
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.pictures import FOLDER, NAME
from orchestrator.tracking.runs import PICTURES
from orchestrator.tracking.store import ARTIFACTS
from tests.dashboards.kept_maps import keep, kept_maps
from tests.orchestrator.tracking.conftest import Trial, curve, full_disk
from trainers.config.map_steps import MOST_MAP_STEPS
from trainers.errors import InputError

KEPT = "tags.`dinolab.key` = 'key'"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def finished(store):
    """A trial that has kept maps at many steps, and MLflow has not seen yet."""
    trial = Trial(store, "key")
    trial.finish(1, curve(9))
    steps = {step: kept_maps(step, is_last=step == 9) for step in range(10)}
    keep(store.root / "trials" / "key", steps)
    return trial


def mirrored(store, arms=("baseline",), study="mini"):
    mirror = Mirror(study, store, print)
    mirror.sync("key", arms, 0)
    mirror.log_pictures("key", arms)
    return {arm: mirror.runs.find(arm, "key") for arm in arms}


def pictures(client, run):
    names = [one.path.removeprefix(f"{FOLDER}/") for one in client.list_artifacts(run, FOLDER)]
    return {int(name.split("+")[2]): name for name in names if name.endswith(".png")}


def test_a_run_has_one_picture_of_each_of_some_steps(store, client, finished):
    run = mirrored(store)["baseline"]
    found = pictures(client, run.run_id)
    assert sorted(found) == [0, 2, 4, 5, 7, 9]
    assert len(client.list_artifacts(run.run_id, FOLDER)) == 2 * MOST_MAP_STEPS
    assert client.get_run(run.run_id).data.tags["mlflow.loggedImages"] == "True"
    content = client.download_artifacts(run.run_id, f"{FOLDER}/{found[9]}")
    shown = np.asarray(Image.open(content))
    assert shown.shape == (4 * 96 + 3 * 4, 4 * 96 + 3 * 4, 3)
    assert not np.array_equal(shown[:96], shown[100:196])


def test_pictures_that_are_logged_again_are_there_once(store, client, finished):
    run = mirrored(store)["baseline"]
    before = {one.path for one in client.list_artifacts(run.run_id, FOLDER)}
    client.delete_tag(run.run_id, PICTURES)
    assert mirrored(store)["baseline"].run_id == run.run_id
    assert {one.path for one in client.list_artifacts(run.run_id, FOLDER)} == before


@pytest.mark.parametrize("is_done", [True, False])
def test_a_kill_at_any_write_leaves_each_picture_once(
    store, client, finished, killed_at_write, is_done
):
    kill_at, is_killed, were_left = 0, True, set()
    while is_killed:
        kill_at += 1
        mirror = Mirror(f"study {kill_at}", store, print)
        mirror.sync("key", ["baseline"], 0)
        is_killed = killed_at_write(
            functools.partial(mirror.log_pictures, "key", ["baseline"]), kill_at, is_done
        )
        were_left.add(len([*(store.root / ARTIFACTS).rglob("*.png")]))
        run = client.get_run(mirrored(store, study=mirror.study)["baseline"].run_id)
        assert len(client.list_artifacts(run.info.run_id, FOLDER)) == 2 * MOST_MAP_STEPS
        assert run.data.tags["mlflow.loggedImages"] == "True"
        shutil.rmtree(store.root / ARTIFACTS)
    assert kill_at == 3
    assert were_left == ({MOST_MAP_STEPS} if is_done else {0, MOST_MAP_STEPS})


def test_pictures_that_are_there_are_not_written_again(store, finished, killed_at_write):
    mirrored(store)
    assert not killed_at_write(lambda: mirrored(store), 1, False)


def test_names_are_those_that_mlflow_gives_its_own_pictures(store, client, finished):
    run = mirrored(store)["baseline"].run_id
    ours = {one.path for one in client.list_artifacts(run, FOLDER)}
    client.log_image(run, Image.new("RGB", (8, 8)), key=NAME, step=9, timestamp=1)
    names = {one.path for one in client.list_artifacts(run, FOLDER)}
    assert names - ours

    def form(name):
        return re.sub(r"timestamp\+\d+\+[\da-f]{8}-[\da-f-]{27}", "timestamp+T+ID", name)

    assert {form(name) for name in names - ours} <= {form(name) for name in ours}


def test_a_full_disk_of_this_machine_is_said_to_be_that(store, client, finished):
    mirror = Mirror("mini", store, print)
    mirror.sync("key", ["baseline"], 0)
    with full_disk(), pytest.raises(InputError, match="on this machine: File too large; give"):
        mirror.log_pictures("key", ["baseline"])
    assert len(pictures(client, mirrored(store)["baseline"].run_id)) == MOST_MAP_STEPS


def test_each_arm_of_a_trial_has_its_pictures(store, client, finished):
    for run in mirrored(store, ("baseline", "same")).values():
        assert len(pictures(client, run.run_id)) == MOST_MAP_STEPS


def test_a_run_that_has_kept_no_images_has_pictures_on_grey(store, client):
    Trial(store, "key").finish(1, curve(3))
    keep(store.root / "trials" / "key", {0: kept_maps(0, is_last=False)})
    run = mirrored(store)["baseline"].run_id
    ((_, name),) = pictures(client, mirrored(store)["baseline"].run_id).items()
    shown = np.asarray(Image.open(client.download_artifacts(run, f"{FOLDER}/{name}")))
    assert (shown[:96, :96] == shown[0, 0]).all()
    assert len(np.unique(shown[100:196, :96])) > 2


def test_a_trial_without_maps_has_no_pictures(store, client):
    Trial(store, "key").finish(1, curve(3))
    run = mirrored(store)["baseline"].run_id
    assert client.list_artifacts(run) == []
    assert "mlflow.loggedImages" not in client.get_run(run).data.tags


def test_an_arm_without_cls_has_no_pictures(store, client):
    Trial(store, "key").finish(1, curve(3))
    keep(store.root / "trials" / "key", {3: kept_maps(0, is_cls=False)})
    assert client.list_artifacts(mirrored(store)["baseline"].run_id) == []


def test_damaged_maps_are_said_and_the_run_has_all_but_pictures(store, client, finished):
    path = next((store.root / "trials" / "key" / "attempts" / "0001").glob("maps-9.*"))
    path.write_bytes(b"other")
    with pytest.raises(InputError, match="maps-9"):
        mirrored(store)
    (run,) = client.search_runs([client.get_experiment_by_name("mini").experiment_id], KEPT)
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "loss/total")) == 10
    assert "mlflow.loggedImages" not in run.data.tags
