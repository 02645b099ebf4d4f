"""Values of each held-out image: kept by a run at its last step, and read again."""

import numpy as np
import pytest
import torch

from trainers.config import override
from trainers.errors import InputError
from trainers.runs.by_image import BY_IMAGE, ByImage, content_of, parse
from trainers.runs.reporters import Fanout
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import run_trial
from trainers.system.store import open_store
from trainers.system.world import World

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def run(root, config, images):
    trial = StoredTrial(open_store(root, make=True), "trial")
    assert run_trial(trial, config, images=images, world=ALONE, reporter=Fanout())
    return trial


def test_a_run_keeps_of_each_held_out_image_what_its_last_metrics_are_means_of(
    tiny, images, tmp_path
):
    trial = run(tmp_path, override(tiny, {"steps": 2}), images)
    step, metrics = trial.records()[-1]
    kept = trial.by_image(trial.finished(), metrics)
    assert step == 2
    assert {"knn/cls_top1", "globality/contrast/gyration"} <= kept.values.keys()
    names = images.identifiers[images.shuffled(images.test)]
    assert kept.images.tolist() == names.tolist()
    for metric, values in kept.values.items():
        assert values.mean(dtype=float) == pytest.approx(metrics[metric], rel=1e-6, abs=1e-6)
    some = trial.by_image(trial.finished(), ["knn/cls_top1", "no/such"])
    assert list(some.values) == ["knn/cls_top1"]


def test_a_run_that_ends_before_its_last_step_keeps_none(tiny, images, tmp_path):
    change = {"steps": 5, "optimizer.learning_rate": 1e30, "optimizer.learning_rate_end": 1e30}
    trial = run(tmp_path, override(tiny, change), images)
    result = trial.finished()
    assert result["status"] == "diverged"
    assert trial.by_image(result, ["knn/cls_top1"]) is None


def test_a_file_that_is_not_there_is_one_line(tiny, images, tmp_path):
    trial = run(tmp_path, override(tiny, {"steps": 2}), images)
    key = f"{trial.attempt_folder(1)}/{BY_IMAGE}"
    trial.store.delete(key)
    with pytest.raises(InputError, match=r"by_image\.safetensors is missing; restore") as caught:
        trial.by_image(trial.finished(), ())
    assert str(caught.value).startswith(f"{trial.store.shown}/{key}")


def test_what_is_written_is_read_again():
    values = {"a/b": np.array([1, 0, 1], np.float32), "a/c": np.array([0.5], np.float32)}
    names = np.array([5, -3, 2**62], np.int64)
    found = parse(content_of(ByImage(images=names, values=values)), ["a/c", "a/d", "a/b"])
    assert found.images.tolist() == names.tolist()
    assert {name: one.tolist() for name, one in found.values.items()} == {
        "a/b": [1, 0, 1],
        "a/c": [0.5],
    }


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_holds_no_values_of_images_is_refused(content):
    with pytest.raises(ValueError, match=r"\S"):
        parse(content, ["a/b"])
