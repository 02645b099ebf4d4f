"""A checkpoint measured again gives what was measured in training, and bad input one line."""

import json
import shutil

import pytest
import torch

from trainers.config import override
from trainers.errors import CheckpointError, ConfigError, InputError
from trainers.evaluation.evaluate import evaluate
from trainers.runs.saved_run import evaluate_run, find_run
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import run_trial
from trainers.system.store import open_store
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.state import TrainState

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, device=CPU)


@pytest.fixture(scope="module")
def trial(tiny, images, tmp_path_factory):
    """A finished run."""
    torch.set_num_threads(1)
    made = StoredTrial(open_store(tmp_path_factory.mktemp("root")), "trial")

    class Silent:
        def report(self, step, metrics, *, checkpoint=None):
            pass

    run_trial(made, tiny, images=images, world=ALONE, reporter=Silent())
    return made


@pytest.fixture
def folder(trial):
    """Its folder."""
    return trial.store.local / trial.folder


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of that, which may be damaged."""
    return shutil.copytree(folder, tmp_path / "trial")


ATTEMPT = "attempts/0001"
LAST = f"{ATTEMPT}/checkpoint-6.safetensors"


@pytest.mark.parametrize("part", [".", ATTEMPT, LAST])
def test_a_run_is_found_by_its_folder_its_checkpoints_and_its_file(folder, tiny, part):
    run = find_run(folder / part)
    assert run.checkpoint == folder / LAST
    assert run.trained == run.measured == tiny
    assert run.step == tiny.steps


def test_the_configuration_may_lie_beside_the_checkpoint(copied, tiny):
    shutil.move(copied / "config.json", copied / ATTEMPT)
    assert find_run(copied / ATTEMPT).trained == tiny


def test_a_checkpoint_has_the_metrics_that_its_run_ended_with(trial, folder, images):
    recorded = trial.records()[-1][1]
    found = evaluate_run(find_run(folder), images, CPU)
    assert "linear_probe/cls_top1" in found
    assert {name: recorded[name] for name in found} == found


def test_other_knobs_of_the_evaluation_measure_otherwise(folder, images, tiny):
    change = {"evaluation.knn_neighbours": 1, "evaluation.globality_images": 5}
    run = find_run(folder, change=change)
    assert run.trained == tiny
    assert run.measured == override(tiny, change)
    state = checkpoint.load(run.checkpoint, tiny, ALONE)
    expected = evaluate(state, images, run.measured)
    seen = []
    assert evaluate_run(run, images, CPU, lambda *done: seen.append(done)) == expected
    assert seen[-1] == (len(images), len(images))


def test_a_step_in_the_middle_is_probed_too(images, tiny, tmp_path):
    state = TrainState.fresh(tiny, ALONE)
    state.step = 3
    checkpoint.save(state, tiny, tmp_path, ALONE)
    (tmp_path / "config.json").write_text(tiny.model_dump_json())
    assert "position_probe/r2" in evaluate_run(find_run(tmp_path), images, CPU)


def test_a_classifier_of_other_classes_than_those_of_the_images_is_no_obstacle(
    images, tiny, tmp_path
):
    config = override(tiny, {"loss.labels": 1.0})
    checkpoint.save(TrainState.fresh(config, ALONE, classes=3), config, tmp_path, ALONE)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    assert "knn/cls_top1" in evaluate_run(find_run(tmp_path), images, CPU)


def test_the_source_of_images_may_be_another(folder):
    run = find_run(folder, data="elsewhere")
    assert run.measured.data.source == "elsewhere"
    assert run.trained.data.source == "digits"


# Bad input


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"nowhere is not there") as caught:
        find_run(tmp_path / "nowhere")
    assert one_line(caught)
    with pytest.raises(InputError, match=r"holds no checkpoint") as caught:
        find_run(tmp_path)
    assert one_line(caught)


def test_a_part_that_is_gone_of_what_a_manifest_names_is_damage(copied):
    manifest = (copied / LAST).with_suffix(".json")
    state = json.loads(manifest.read_text())
    state["files"]["checkpoint-6/part-1.safetensors"] = "0" * 64
    manifest.write_text(json.dumps(state))
    with pytest.raises(InputError, match=r"is damaged: it is not what .* says; restore") as caught:
        find_run(copied)
    assert one_line(caught)


def test_a_missing_configuration_is_said(copied):
    (copied / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json in .*0001 or ") as caught:
        find_run(copied)
    assert one_line(caught)


@pytest.mark.parametrize("text", ["{", '{"steps": -1, "nonsense": 2}'])
def test_an_unreadable_configuration_is_said(copied, text):
    (copied / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: ") as caught:
        find_run(copied)
    assert one_line(caught)


def test_another_configuration_is_refused(copied, tiny):
    (copied / "config.json").write_text(override(tiny, {"seed": 9}).model_dump_json())
    with pytest.raises(InputError, match="another configuration") as caught:
        find_run(copied)
    assert one_line(caught)


@pytest.mark.parametrize("kept", [0, 10, 4000])
def test_a_torn_checkpoint_is_refused(copied, kept):
    saved = copied / LAST
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(InputError, match="cannot be read") as caught:
        find_run(copied)
    assert one_line(caught)


def test_a_checkpoint_without_some_tensors_is_refused(copied, images, tiny):
    state = TrainState.fresh(tiny, ALONE)
    del state.teacher.head
    state.step = 6
    checkpoint.save(state, tiny, copied / ATTEMPT, ALONE)
    (copied / ATTEMPT / "checkpoint-6.json").unlink()
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        evaluate_run(find_run(copied), images, CPU)
    assert one_line(caught)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.width", "can only be measured otherwise"),
        ("evaluation.knn_neighbors", "did you mean evaluation.knn_neighbours"),
    ],
)
def test_other_knobs_are_refused(folder, name, message):
    with pytest.raises(ConfigError, match=message):
        find_run(folder, change={name: 48})
