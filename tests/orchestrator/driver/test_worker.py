"""What a trial refuses to train, and what a worker group's trial tells Tune."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from orchestrator.driver import worker
from orchestrator.resources import Placement
from trainers.config import override
from trainers.config.recipe import recipe
from trainers.data.image_set import open_images
from trainers.errors import LostWorkerError, OutOfMemoryError
from trainers.runs.reporters import JsonLines
from trainers.runs.trial import Planned, TrialFolder, trial_key
from trainers.runs.version import code_versions

ALONE = Placement(workers=1, cpus_per_worker=1, gpus_per_worker=0, concurrent=1)


@pytest.fixture
def assignment(tmp_path):
    """A trial on a folder of images, planned."""
    for number in range(8):
        picture = Image.new("RGB", (16, 16), (30 * number, 0, 0))
        (tmp_path / "images").mkdir(exist_ok=True)
        picture.save(tmp_path / "images" / f"{number}.png")
    config = override(
        recipe("digits_tiny"), {"data.source": str(tmp_path / "images"), "batch_size": 4}
    )
    digest = open_images(config.data, tmp_path / "cache").digest
    key = trial_key(config, digest)
    return worker.Assignment(
        folder=str(tmp_path / "trials" / key),
        config=config.model_dump_json(),
        planned=Planned(key=key, digest=digest, code=dict(code_versions())),
        cache=str(tmp_path / "cache"),
    )


def refusal(assignment):
    """Why the trial has not even begun."""
    said = failure(assignment)
    assert not TrialFolder(Path(assignment.folder)).metrics.exists()
    return said


def failure(assignment):
    """Why the trial failed for good: an error that may go better next time is raised instead."""
    worker.run_alone({"trial": assignment}, ALONE)
    folder = TrialFolder(Path(assignment.folder))
    assert folder.finished() is None
    return json.loads(folder.failure.read_text())["message"]


def test_data_that_changed_since_the_plan_are_not_trained_on(assignment, tmp_path):
    Image.new("RGB", (16, 16), "white").save(tmp_path / "images" / "0.png")
    message = refusal(assignment)
    assert message.startswith(f"PlanError: planned on data {assignment.planned.digest[:12]}, but")
    assert str(tmp_path / "images") in message
    assert "\n" not in message


@pytest.mark.slow
def test_a_node_with_other_code_trains_nothing(assignment, monkeypatch):
    other = {**code_versions(), "trainers.training.step": "0" * 12}
    monkeypatch.setattr("trainers.runs.trial.code_versions", lambda: other)
    message = refusal(assignment)
    assert message.startswith("PlanError: planned with other code than this worker has")
    assert "differs in trainers.training.step;" in message
    assert "\n" not in message


def test_the_cause_of_a_group_that_ends_is_what_a_retry_does_not_help():
    lost, full = LostWorkerError("another worker"), OutOfMemoryError("out of memory in a step")
    assert worker.cause([lost, full]) is full
    assert worker.cause([lost, OSError("disk")]) is lost


def test_a_trial_without_memory_fails_at_once_with_the_knobs_to_change(assignment, monkeypatch):
    def full(*_arguments, **_named):
        return torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr("trainers.training.loop.evaluate", full)
    said = failure(assignment)
    assert said.startswith("OutOfMemoryError: out of memory in an evaluation (1152921504606846976")
    assert "evaluation.batch_size" in said
    assert "\n" not in said


def test_a_worker_that_was_given_a_gpu_and_finds_none_fails_at_once(assignment, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    worker.run_alone({"trial": assignment}, replace(ALONE, gpus_per_worker=1))
    said = json.loads(TrialFolder(Path(assignment.folder)).failure.read_text())["message"]
    assert said.startswith("ConfigError: --device cuda: PyTorch finds no GPU here")


class Rounds(threading.Event):
    """Each time it is waited for, one more of `happens` has happened; with the last it is set."""

    def __init__(self, *happens):
        super().__init__()
        self.happens = list(happens)

    def wait(self, timeout=None):
        self.happens.pop(0)()
        return not self.happens


def test_records_of_a_group_are_told_once_in_order_and_to_the_last(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(worker.tune, "report", told.append)
    folder = TrialFolder(tmp_path / "trial")
    damaged = folder.metrics

    def write(*steps, keep_up_to):
        lines = JsonLines(folder.metrics, keep_up_to=keep_up_to)
        for step in steps:
            lines.report(step, {"loss/total": 1.0 + step, "time/step_s": 0.1})

    worker._follow(
        folder,
        Rounds(
            lambda: None,
            lambda: write(0, 10, keep_up_to=-1),
            # Another attempt takes back what the checkpoint does not know, and comes past it.
            lambda: write(10, keep_up_to=0),
            lambda: damaged.write_text("damaged\n"),
            damaged.unlink,
            lambda: write(0, 10, 20, 30, keep_up_to=-1),
        ),
    )
    assert told == [{"step": step, "loss/total": 1.0 + step} for step in (0, 10, 20, 30)]
