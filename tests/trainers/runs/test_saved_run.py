"""A checkpoint measured again gives what was measured in training, and bad input one line."""

import json
import shutil

import pytest
import torch

from trainers.config import override
from trainers.errors import CheckpointError, ConfigError, InputError
from trainers.evaluation.evaluate import evaluate
from trainers.runs.saved_run import evaluate_run, find_run
from trainers.runs.trial import TrialFolder, run_trial
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.state import TrainState

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, device=CPU)


@pytest.fixture(scope="module")
def folder(tiny, images, tmp_path_factory):
    """The folder of a finished run, whose metrics are kept."""
    torch.set_num_threads(1)
    made = TrialFolder(tmp_path_factory.mktemp("run") / "trial")

    class Silent:
        def report(self, step, metrics, *, checkpoint=None):
            pass

    run_trial(made, tiny, images=images, world=ALONE, reporter=Silent())
    return made


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of it that may be damaged."""
    shutil.copytree(folder.path, tmp_path / "trial")
    return TrialFolder(tmp_path / "trial")


@pytest.mark.parametrize("part", [".", "checkpoint", "checkpoint/state.safetensors"])
def test_a_run_is_found_by_its_folder_its_checkpoints_and_its_file(folder, tiny, part):
    run = find_run(folder.path / part)
    assert run.checkpoint == folder.checkpoints / checkpoint.FILE_NAME
    assert run.trained == run.measured == tiny
    assert run.step == tiny.steps


def test_the_configuration_may_lie_beside_the_checkpoint(copied, tiny):
    shutil.move(copied.config, copied.checkpoints / "config.json")
    assert find_run(copied.checkpoints).trained == tiny


def test_a_checkpoint_has_the_metrics_that_its_run_ended_with(folder, images):
    recorded = json.loads(folder.metrics.read_text().splitlines()[-1])["metrics"]
    found = evaluate_run(find_run(folder.path), images, CPU)
    assert "linear_probe/cls_top1" in found
    assert {name: recorded[name] for name in found} == found


def test_other_knobs_of_the_evaluation_measure_otherwise(folder, images, tiny):
    change = {"evaluation.knn_neighbours": 1, "evaluation.globality_images": 5}
    run = find_run(folder.path, change=change)
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
    run = find_run(folder.path, data="elsewhere")
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
    with pytest.raises(InputError, match=r"holds no state\.safetensors") as caught:
        find_run(tmp_path)
    assert one_line(caught)


def test_a_missing_configuration_is_said(copied):
    copied.config.unlink()
    with pytest.raises(InputError, match=r"no config\.json in .*checkpoint or ") as caught:
        find_run(copied.path)
    assert one_line(caught)


@pytest.mark.parametrize("text", ["{", '{"steps": -1, "nonsense": 2}'])
def test_an_unreadable_configuration_is_said(copied, text):
    copied.config.write_text(text)
    with pytest.raises(InputError, match=r"config\.json: ") as caught:
        find_run(copied.path)
    assert one_line(caught)


def test_another_configuration_is_refused(copied, tiny):
    copied.config.write_text(override(tiny, {"seed": 9}).model_dump_json())
    with pytest.raises(InputError, match="another configuration") as caught:
        find_run(copied.path)
    assert one_line(caught)


@pytest.mark.parametrize("kept", [0, 10, 4000])
def test_a_torn_checkpoint_is_refused(copied, kept):
    saved = copied.checkpoints / checkpoint.FILE_NAME
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(InputError, match="cannot be read") as caught:
        find_run(copied.path)
    assert one_line(caught)


def test_a_checkpoint_without_some_tensors_is_refused(copied, images, tiny):
    state = TrainState.fresh(tiny, ALONE)
    del state.teacher.head
    checkpoint.save(state, tiny, copied.checkpoints, ALONE)
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        evaluate_run(find_run(copied.path), images, CPU)
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
        find_run(folder.path, change={name: 48})
