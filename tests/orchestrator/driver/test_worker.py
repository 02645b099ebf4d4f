"""What a trial refuses to train, and what a worker group's trial tells Tune."""

import threading
from dataclasses import replace

import pytest
import torch
from PIL import Image

from orchestrator.driver import worker
from orchestrator.driver.output import KEPT_BYTES, Output
from orchestrator.resources import Placement
from trainers.config import override
from trainers.config.recipe import recipe
from trainers.data.image_set import open_images
from trainers.errors import LostWorkerError, OutOfMemoryError
from trainers.runs.attempt import claimed
from trainers.runs.records import Records
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import Planned, trial_key
from trainers.runs.version import code_versions
from trainers.system.store import open_store

ALONE = Placement(workers=1, cpus_per_worker=1, gpus_per_worker=0, concurrent=1, attainable=1)


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
    (tmp_path / "root").mkdir()
    return worker.Assignment(
        root=str(tmp_path / "root"),
        key=key,
        driver="this",
        over=(),
        config=config.model_dump_json(),
        planned=Planned(key=key, digest=digest, code=dict(code_versions())),
        cache=str(tmp_path / "cache"),
    )


@pytest.fixture
def told(monkeypatch):
    """What a worker tells Tune."""
    reports = []
    monkeypatch.setattr(worker.tune, "report", reports.append)
    return reports


@pytest.fixture
def failure(assignment, told):
    """Trains the trial, and says how it failed."""

    def failed(placement=ALONE):
        worker.run_alone({"trial": assignment}, placement)
        stored = assignment.stored()
        assert stored.finished() is None
        ended = told[-1][worker.ENDED]
        assert ended.found == "failed"
        assert "Traceback" in ended.text
        return ended.failure

    return failed


@pytest.fixture
def refusal(assignment, failure):
    """Why the trial has not even begun: in one line, for its user to mend."""

    def refused():
        said = failure()
        assert assignment.stored().records() == []
        assert (said.kind, said.again) == ("user", False)
        assert "\n" not in said.message
        return said.message

    return refused


def test_data_that_changed_since_the_plan_are_not_trained_on(assignment, refusal, tmp_path):
    Image.new("RGB", (16, 16), "white").save(tmp_path / "images" / "0.png")
    message = refusal()
    assert message.startswith(f"PlanError: planned on data {assignment.planned.digest[:12]}, but")
    assert str(tmp_path / "images") in message


@pytest.mark.slow
def test_a_node_with_other_code_trains_nothing(refusal, monkeypatch):
    other = {**code_versions(), "trainers.training.step": "0" * 12}
    monkeypatch.setattr("trainers.runs.trial.code_versions", lambda: other)
    message = refusal()
    assert message.startswith("PlanError: planned with other code than this worker has")
    assert "differs in trainers.training.step;" in message


def test_the_cause_of_a_group_that_ends_is_what_a_retry_does_not_help():
    lost, full = LostWorkerError("another worker"), OutOfMemoryError("out of memory in a step")
    assert worker.cause([lost, full]) is full
    assert worker.cause([lost, OSError("disk")]) is lost


def test_a_trial_without_memory_fails_at_once_with_the_knobs_to_change(
    assignment, failure, monkeypatch
):
    def full(*_arguments, **_named):
        return torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr("trainers.training.loop.evaluate", full)
    said = failure().message
    assert said.startswith("OutOfMemoryError: out of memory in an evaluation (1152921504606846976")
    assert "evaluation.batch_size" in said
    assert "\n" not in said
    stored = assignment.stored()
    assert (stored.failed().kind, stored.failed().message) == ("user", said)
    assert b"Traceback" in stored.store.get(f"{stored.attempt_folder(1)}/log.txt")
    assert stored.lease(1).outcome == "failed"


def test_a_worker_that_was_given_a_gpu_and_finds_none_fails_at_once(failure, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    said = failure(replace(ALONE, gpus_per_worker=1))
    assert said.message.startswith("ConfigError: --device cuda: PyTorch finds no GPU here")
    assert (said.kind, said.again) == ("user", False)


@pytest.mark.parametrize("run", [worker.run_alone, worker.run_group])
def test_a_root_that_is_away_when_a_worker_starts_is_not_the_trials_fault(assignment, told, run):
    away = replace(assignment, root=f"{assignment.root}-away")
    run({"trial": away}, ALONE)
    failure = told[-1][worker.ENDED].failure
    assert "is not there" in failure.message
    assert (failure.kind, failure.again, failure.of_the_root) == ("infrastructure", True, True)


def test_a_trial_that_somebody_else_holds_is_left_to_them(assignment, told):
    other = claimed(assignment.stored(), steps=9, driver="other", over=(), waits=False)
    try:
        worker.run_alone({"trial": assignment}, ALONE)
    finally:
        other.end("interrupted")
    assert told[-1][worker.ENDED].found == "held"
    assert assignment.stored().attempts() == [1]


def test_the_last_lines_of_what_a_worker_printed_are_kept(tmp_path):
    with (tmp_path / "worker.out").open("w") as file:
        file.write("of another trial\n")
        start = file.tell()
        file.write("x" * KEPT_BYTES + "\nlast line")
    tail = Output(node="", files=((file.name, start), (str(tmp_path / "gone"), 0))).tail()
    assert tail.endswith("x\nlast line\n")
    assert KEPT_BYTES <= len(tail) <= KEPT_BYTES + 1
    assert "another" not in tail


class Rounds(threading.Event):
    """Each time it is waited for, one more of `happens` has happened; with the last it is set."""

    def __init__(self, *happens):
        super().__init__()
        self.happens = list(happens)

    def wait(self, timeout=None):
        self.happens.pop(0)()
        return not self.happens


def test_records_of_a_group_are_told_once_in_order_and_to_the_last(tmp_path, told):
    stored = StoredTrial(open_store(tmp_path), "0" * 16)
    damaged = f"{stored.attempt_folder(2)}/metrics-000000000.jsonl"

    def write(attempt, *steps):
        records = Records(stored.store, stored.attempt_folder(attempt))
        for step in steps:
            records.report(step, {"loss/total": 1.0 + step, "time/step_s": 0.1})

    worker._follow(
        stored,
        Rounds(
            lambda: None,
            lambda: write(1, 0, 10),
            # Another attempt begins with what the checkpoint knows, and comes past it.
            lambda: write(2, 0),
            lambda: stored.store.put(damaged, b"damaged\n"),
            lambda: write(2, 0, 10, 20, 30),
        ),
    )
    assert told == [{"step": step, "loss/total": 1.0 + step} for step in (0, 10, 20, 30)]


def test_training_does_not_wait_for_tune_which_hears_the_newest(monkeypatch):
    heard, arrived, comes_round = [], threading.Event(), threading.Semaphore(0)

    def report(news):
        heard.append(news)
        arrived.set()
        assert comes_round.acquire(timeout=30)

    monkeypatch.setattr(worker.tune, "report", report)
    monkeypatch.setattr(worker, "FOLLOWED_EVERY_S", 0.01)
    with worker.TuneReporter() as reporter:
        reporter.report(0, {"loss/total": 1.0, "time/step_s": 0.1})
        assert arrived.wait(timeout=30)
        arrived.clear()
        for step in (1, 2, 3):
            reporter.report(step, {"loss/total": 1.0 + step})
        comes_round.release()
        assert arrived.wait(timeout=30)
        comes_round.release()
    assert heard == [{"step": 0, "loss/total": 1.0}, {"step": 3, "loss/total": 4.0}]
