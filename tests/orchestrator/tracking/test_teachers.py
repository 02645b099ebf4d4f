"""What MLflow has of a run beside numbers: its data set, its code, its teacher as a model."""

import hashlib
import json
import shutil
from pathlib import Path

import mlflow
import pytest
import torch
from rich.console import Console

from ablations.registration import written
from dashboards.tables.chain import read_chain
from orchestrator.driver.mirrored import Mirrored
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.provenance import without_credentials
from orchestrator.tracking.runs import TEACHER
from orchestrator.tracking.store import check_store, tracking_uri
from orchestrator.tracking.teachers import Teacher, _graph, _write_graph
from orchestrator.tracking.where import TEACHERS
from tests.orchestrator.tracking.conftest import Trial, curve, ended, full_disk, study_of
from trainers.config import ModelConfig, TrainConfig, override
from trainers.data.image_set import open_images
from trainers.errors import InputError
from trainers.model.vit import VisionTransformer, initialise
from trainers.runs.reporters import Fanout
from trainers.runs.saved_run import SavedRun, find_run, run_backbone
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import run_trial
from trainers.system.store import LocalStore
from trainers.system.world import World

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG = override(
    TrainConfig(),
    {
        "steps": 2, "batch_size": 8, "model.width": 24, "model.heads": 2, "model.depth": 2,
        "optimizer.warmup_steps": 1, "evaluation.globality_images": 4,
        "evaluation.globality_probe_images": 4, "evaluation.causal_images": 0,
        "evaluation.probes": False,
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run root with a finished run, which is none in MLflow yet."""
    root = shutil.copytree(template, tmp_path_factory.mktemp("trained") / "runs")
    images = open_images(CONFIG.data, Path("unused"))
    world = World.alone(torch.device("cpu"))
    trial = StoredTrial(LocalStore(root), "key")
    run_trial(trial, CONFIG, images=images, world=world, reporter=Fanout())
    return root


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> LocalStore:
    """That run root, to be written to."""
    return LocalStore(shutil.copytree(trained, tmp_path / "runs"))


def mirrored(store):
    """Mirror the run and its teacher; returns its identifier."""
    mirror = Mirror("mini", store, print)
    mirror.sync("key", ["baseline"], 0)
    mirror.log_teacher("key", ["baseline"])
    return mirror.runs.find("baseline", "key").run_id


def models(client):
    return client.search_logged_models([client.get_experiment_by_name("mini").experiment_id])


def test_the_logged_teacher_gives_the_features_of_its_checkpoint_exactly_and_runs_no_code(
    store, client, monkeypatch
):
    run_id = mirrored(store)
    # As a pickle, it would not open.
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(store.root))
    opened = mlflow.pytorch.load_model(f"runs:/{run_id}/teacher")
    backbone = run_backbone(find_run(store.root / "trials" / "key"))
    for count in (1, 3):
        images = torch.randn(count, 3, 16, 16)
        assert torch.equal(opened(images), backbone(images).cls)
    answer = mlflow.pyfunc.load_model(f"runs:/{run_id}/teacher").predict(images.numpy())
    assert torch.equal(torch.from_numpy(answer), backbone(images).cls)
    (model,) = models(client)
    assert model.params == {"arm": "baseline", "seed": "0", "step": "2"}


def test_a_teacher_of_a_moved_root_opens(store, tmp_path, monkeypatch):
    run_id = mirrored(store)
    moved = LocalStore(store.root.rename(tmp_path / "elsewhere"))
    Mirror("mini", moved, print)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(moved.root))
    assert mlflow.pytorch.load_model(f"runs:/{run_id}/teacher")(torch.zeros(1, 3, 16, 16)).any()


@pytest.mark.parametrize("is_done", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_kill_at_any_write_leaves_one_whole_teacher_and_one_data_set(
    store, client, killed_at_write, is_done
):
    kill_at, is_killed = 0, True
    while is_killed:
        kill_at += 1
        shutil.copy(store.root / "mlflow.db", store.root / "empty.db")
        is_killed = killed_at_write(lambda: mirrored(store), kill_at, is_done)
        run = client.get_run(mirrored(store))
        (model,) = models(client)
        assert (model.status, model.source_run_id) == ("READY", run.info.run_id)
        assert [one.model_id for one in run.outputs.model_outputs] == [model.model_id]
        names = {one.path for one in client.list_logged_model_artifacts(model.model_id)}
        assert names == {"MLmodel", "data", "requirements.txt"}
        assert len(run.inputs.dataset_inputs) == 1
        (store.root / "empty.db").replace(store.root / "mlflow.db")
    assert kill_at > 9


def test_a_run_that_is_replaced_leaves_no_teacher_behind(store, client):
    mirrored(store)
    mirror = Mirror("mini", store, print)
    new = mirror.runs.replace(mirror.runs.find("baseline", "key"))
    assert mirrored(store) == new.run_id
    assert [one.source_run_id for one in models(client)] == [new.run_id]


def test_a_teacher_that_is_there_is_not_written_again(store, client, killed_at_write):
    mirrored(store)
    assert not killed_at_write(lambda: mirrored(store), 1, False)


def test_a_run_that_has_not_ended_or_kept_no_checkpoint_has_no_teacher(store, client):
    mirror = Mirror("mini", store, print)
    Trial(store, "running").segment(1, curve(3))
    Trial(store, "bare").finish(1, curve(3))
    for seed, key in enumerate(("running", "bare")):
        mirror.sync(key, ["baseline"], seed)
        mirror.log_teacher(key, ["baseline"])
    assert list(models(client)) == []
    tags = {key: mirror.runs.find("baseline", key).tags for key in ("running", "bare")}
    assert TEACHER not in tags["running"]
    assert tags["bare"][TEACHER].endswith(" none: its last checkpoint was not kept")


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_last_manifest_that_is_gone_or_damaged_is_one_line(store, client, how):
    (path,) = (store.root / "trials" / "key").glob("attempts/*/checkpoint-2.json")
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"checkpoint-2\.json is damaged"):
        mirrored(store)
    assert list(models(client)) == []


def test_a_full_disk_of_this_machine_is_said_to_be_that_and_no_end_of_it(store, client):
    mirror = Mirror("mini", store, print)
    mirror.sync("key", ["baseline"], 0)
    with full_disk(), pytest.raises(InputError, match=r"on this machine: .*TMPDIR"):
        mirror.log_teacher("key", ["baseline"])
    assert TEACHER not in mirror.runs.find("baseline", "key").tags
    mirror.log_teacher("key", ["baseline"])
    assert [model.status for model in models(client)] == ["READY"]


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device")])
def test_what_this_machine_lacks_is_not_taken_for_a_graph_that_cannot_be(
    store, client, monkeypatch, error
):
    def refused(*_, **__):
        raise error

    _graph.cache_clear()
    monkeypatch.setattr("orchestrator.tracking.teachers.export", refused)
    with pytest.raises(InputError, match="on this machine: "):
        mirrored(store)
    monkeypatch.undo()
    mirrored(store)
    assert [model.status for model in models(client)] == ["READY"]


def test_a_damaged_checkpoint_is_one_line_and_no_teacher(store, client):
    (path,) = (store.root / "trials" / "key").glob("attempts/*/checkpoint-2.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint-2\.safetensors is damaged"):
        mirrored(store)
    assert list(models(client)) == []


def test_a_wandering_cls_has_no_teacher_and_that_is_said(tmp_path):
    config = override(CONFIG, {"model.cls_position": "random"})
    saved = SavedRun(checkpoint=tmp_path, step=2, trained=config, measured=config)
    assert _write_graph(saved, tmp_path / "model").startswith("none: where its [CLS] stands")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"cls_position": "sincos", "patch_position": "sincos"},
        {"cls_position": "rotary", "patch_position": "rotary", "registers": 2},
        {"cls_position": "tied", "mlp": "swiglu", "layer_scale": 0.1},
        {"cls": False, "cls_position": "none"},
    ],
)
def test_the_graph_of_every_kind_of_backbone_is_exact(changes):
    config = ModelConfig.model_validate({**CONFIG.model.model_dump(), **changes})
    backbone = VisionTransformer(config, 16, masks=True).requires_grad_(False).eval()
    initialise(backbone, 0, 0.1)
    graph = _graph(config.model_dump_json(), 16, True)
    graph.state_dict.update(Teacher(backbone).named_parameters())
    for count in (1, 3):
        images = torch.randn(count, 3, 16, 16)
        assert torch.equal(graph.module()(images), backbone(images).image)


def test_a_run_has_its_data_set_and_the_code_that_computed_it(store, client):
    run = client.get_run(mirrored(store))
    result = json.loads(store.get("trials/key/result.json"))
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.source_type) == ("digits", "dinolab")
    assert result["data"].startswith(used.dataset.digest)
    assert json.loads(used.dataset.profile)["sha256"] == result["data"]
    assert "-1, 16, 16, 3" in json.loads(used.dataset.schema)["mlflow_tensorspec"]["features"]
    assert run.data.tags["dinolab.data"] == result["data"]
    assert len(run.data.tags["dinolab.code"]) == 12


def test_a_run_that_trains_has_what_its_registration_says(store, client):
    study = study_of({("baseline", 0): ended(0.5)}, store)
    content = study.entry.model_dump(mode="json", exclude={"sha256"})
    content |= {
        "dataset": {"digest": "d" * 64, "images": 7, "skipped": []},
        "code": {"trainers.grid": "0"},
        "git": {"commit": "c" * 40},
    }
    store.put("studies/mini/registrations/0001.json", written(content))
    Trial(store, "0-0").segment(1, curve(3))
    mirror = Mirror("mini", store, print)
    mirror.sync("0-0", ["baseline"], 0)
    run = client.get_run(mirror.runs.find("baseline", "0-0").run_id)
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.digest == "d" * 36
    assert json.loads(used.dataset.profile) == {"images": 7, "sha256": "d" * 64}
    assert run.data.tags["mlflow.source.git.commit"] == "c" * 40


def test_the_commit_of_a_run_is_that_under_which_it_was_computed_and_stays(
    store, client, killed_at_write
):
    study = study_of({("baseline", seed): ended(0.5) for seed in (0, 1)}, store)
    entry = study.entry.model_dump(mode="json", exclude={"sha256"})
    first = written({**entry, "git": {"commit": "a" * 40, "dirty": True}})
    store.put("studies/mini/registrations/0001.json", first)
    digest = hashlib.sha256(first).hexdigest()
    Trial(store, "0-0").finish(1, curve(3), registrations=["", digest])
    Trial(store, "0-1", 1).finish(1, curve(3), registrations=[digest, "of another study"])

    def synced():
        mirror = Mirror("mini", store, print)
        for seed in (0, 1):
            mirror.sync(f"0-{seed}", ["baseline"], seed)
        return [mirror.runs.find("baseline", f"0-{seed}").tags for seed in (0, 1)]

    tags = synced()
    assert tags[0]["mlflow.source.git.commit"] == "a" * 40
    assert tags[0]["mlflow.source.git.dirty"] == "true"
    assert not tags[1].get("mlflow.source.git.commit")
    amended = {"number": 2, "parent": digest, "reason": "more", "git": {"commit": "b" * 40}}
    store.put("studies/mini/registrations/0002.json", written({**entry, **amended}))
    assert [one.number for one in read_chain(store, "mini")] == [1, 2]
    assert not killed_at_write(synced, 1, False)


def test_no_user_password_or_option_of_an_address_is_logged(store, client):
    given = "s3://user:secret@bucket/images?endpoint_override=here"
    assert without_credentials(given) == "s3://bucket/images"
    assert without_credentials("hf:org/images@main") == "hf:org/images@main"
    config = override(CONFIG, {"data.source": given})
    store.put("trials/other/config.json", config.model_dump_json().encode())
    Trial(store, "other").segment(1, curve(3))
    mirror = Mirror("mini", store, print)
    mirror.sync("other", ["baseline"], 1)
    run = client.get_run(mirror.runs.find("baseline", "other").run_id)
    assert run.data.params["data.source"] == "s3://bucket/images"


def test_of_which_runs_teachers_are_logged_is_said_by_the_environment(store, client, monkeypatch):
    for said, count in (("none", 0), ("all", 1)):
        monkeypatch.setenv(TEACHERS, said)
        with Mirrored("mini", store, Console()) as beside:
            beside.sync("key", ["baseline"], 0)
        assert len(models(client)) == count
    monkeypatch.setenv(TEACHERS, "some")
    for refused in (lambda: Mirrored("mini", store, Console()), lambda: check_store(store.root)):
        with pytest.raises(InputError, match="DINOLAB_MLFLOW_TEACHERS='some': give all or none"):
            refused()
