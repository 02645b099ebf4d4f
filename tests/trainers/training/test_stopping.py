"""A run ends before its last step: by SIGTERM, saved, or because it has collapsed."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
import torch

from tests.trainers.training.workers import Job, run_group, step_saved_after_a_signal
from trainers.config import override
from trainers.metrics import OF_THE_MACHINE
from trainers.runs.reporters import Fanout
from trainers.runs.saved_run import find_run
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import run_trial
from trainers.system.store import open_store
from trainers.system.world import World
from trainers.training import checkpoint, stopping

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
ARGUMENTS = [
    "digits_tiny", "--set", "steps=80", "--set", "log_every=2", "--set", "checkpoint_every=50",
    "--set", "model.depth=1", "--set", "evaluation.globality_layers=[1]",
    "--set", "evaluation.every=80", "--set", "evaluation.causal_images=0",
    "--set", "evaluation.globality_images=8", "--set", "evaluation.globality_probe_images=8",
    "--set", "evaluation.probes=false", "--set", "batch_size=8",
]  # fmt: skip
# At such a temperature, learning nothing, every image keeps the uniform output.
COLLAPSING = {
    "optimizer.learning_rate": 1e-12, "optimizer.learning_rate_end": 0.0,
    "targets.temperature": 1.0, "targets.temperature_start": 1.0, "evaluation.every": 2,
}  # fmt: skip


def started(module, root, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", *module, *ARGUMENTS, "--root", str(root)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process, start):
    """Read what the process prints up to a line that begins like that."""
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError(process.stderr.read())


def left(root):
    """What a run has left but times: its records, its chain and its last state."""
    (path,) = root.glob("trials/*/result.json")
    records = [
        (step, {name: value for name, value in metrics.items()
                if not name.startswith(OF_THE_MACHINE)})
        for step, metrics in StoredTrial(open_store(root), path.parent.name).records()
    ]  # fmt: skip
    result = json.loads(path.read_text())
    state = find_run(path.parent).checkpoint.read_bytes()
    return records, result["chain"], result["status"], state


def ended(process):
    """Exit code, and what it said on its last lines."""
    out, error = process.communicate(timeout=300)
    return process.returncode, out + error


@pytest.mark.slow
@pytest.mark.parametrize("module", [["trainers"], ["orchestrator", "train"]], ids=" ".join)
def test_sigterm_saves_and_the_same_command_goes_on_bit_for_bit(module, tmp_path):
    process = started(module, tmp_path / "cut")
    wait_for(process, "step 4/80")
    process.send_signal(signal.SIGTERM)
    code, said = ended(process)
    assert code == 130
    (saved,) = (tmp_path / "cut").glob("trials/*/attempts/0001/checkpoint-*.safetensors")
    step = checkpoint.saved_step(saved)
    assert 4 <= step < 50
    assert f"interrupted: saved at step {step}; the same command goes on from there" in said
    assert not list((tmp_path / "cut").glob("trials/*/result.json"))
    code, said = ended(started(module, tmp_path / "cut"))
    assert code == 0, said
    code, said = ended(started(["trainers"], tmp_path / "whole"))
    assert code == 0, said
    assert left(tmp_path / "cut") == left(tmp_path / "whole")


@pytest.mark.slow
def test_a_signal_to_one_worker_ends_all_of_them_at_the_same_step(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    workers = [
        started(
            ["trainers"], tmp_path, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for rank in range(2)
    ]  # fmt: skip
    wait_for(workers[0], "step 4/80")
    workers[1].send_signal(signal.SIGTERM)
    found = [ended(worker) for worker in workers]
    (saved,) = tmp_path.glob("trials/*/attempts/0001/checkpoint-*.safetensors")
    step = checkpoint.saved_step(saved)
    assert 4 <= step < 50
    for code, said in found:
        assert code == 130
        assert f"interrupted: saved at step {step};" in said


@pytest.fixture
def listening():
    before = signal.getsignal(signal.SIGTERM)
    stopping.listen()
    yield
    signal.signal(signal.SIGTERM, before)


def stored(root, key="trial"):
    return StoredTrial(open_store(root, make=True), key)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_workers_need_no_log_to_hear_of_a_signal_to_one_of_them(tiny, tmp_path):
    config = override(tiny, {"log_every": 6, "checkpoint_every": 6, "evaluation.probes": False,
                             "evaluation.causal_images": 0})  # fmt: skip
    assert run_group(2, Job(config, tmp_path), task=step_saved_after_a_signal) == [1]


class TestASignal:
    """Of the first one a run is told; any other ends the process."""

    def test_the_first_is_remembered_and_a_later_one_ends_at_once(
        self, tiny, listening, monkeypatch
    ):
        def why():
            return stopping.why_to_end(tiny, ALONE, None, stopping.asked_to_end())

        with stopping.heeded():
            assert why() == ""
            terminate()
            assert why() == "interrupted"
            # At once: a scheduler and a launcher each send one.
            terminate()
            assert why() == "interrupted"
            monkeypatch.setattr(stopping, "_ONE_REQUEST_S", 0.0)
            with pytest.raises(KeyboardInterrupt):
                terminate()
        with stopping.heeded():
            assert why() == ""

    def test_before_anything_is_trained_the_first_ends_at_once(self, listening):
        with pytest.raises(KeyboardInterrupt):
            terminate()

    def test_training_alone_listens_to_none(self, tiny, images, tmp_path):
        # As in a Ray worker, whose signals are Ray's.
        before = signal.getsignal(signal.SIGTERM)
        seen = []

        class Look:
            def report(self, step, metrics, *, checkpoint=None):
                seen.append(signal.getsignal(signal.SIGTERM))

        config = override(tiny, {"steps": 1})
        run_trial(stored(tmp_path), config, images=images, world=ALONE, reporter=Look())
        assert set(seen) == {before}


class Kill(Exception):  # noqa: N818
    """Stands for a kill."""


class TestCollapse:
    def run(self, config, images, trial, reporter=None):
        run_trial(trial, config, images=images, world=ALONE, reporter=reporter or Fanout())
        return trial.finished()

    def test_a_run_that_collapses_goes_on_unless_asked(self, tiny, images, tmp_path):
        result = self.run(override(tiny, COLLAPSING), images, stored(tmp_path))
        assert (result["status"], result["step"], result["steps"]) == ("collapsed", 6, 6)

    def test_a_run_that_is_asked_to_ends_at_the_evaluation_that_sees_it(
        self, tiny, images, tmp_path
    ):
        config = override(tiny, {**COLLAPSING, "stop_when": "collapsed"})
        trial = stored(tmp_path)
        result = self.run(config, images, trial)
        # The evaluation at step 0, which sees the same, is of no training.
        assert (result["status"], result["step"], result["steps"]) == ("collapsed", 2, 6)
        assert result["reason"].startswith("at step 2: outputs are the same for every image")
        assert [state.step for state in trial.states()] == [2]

    @pytest.mark.slow
    def test_killed_between_its_last_checkpoint_and_its_result_it_ends_at_the_same_step(
        self, tiny, images, tmp_path
    ):
        class AtTheCheckpoint:
            def report(self, step, metrics, *, checkpoint=None):
                if checkpoint:
                    raise Kill

        config = override(tiny, {**COLLAPSING, "stop_when": "collapsed"})
        cut, whole = (stored(tmp_path, name) for name in ("cut", "whole"))
        with pytest.raises(Kill):
            self.run(config, images, cut, AtTheCheckpoint())
        assert cut.finished() is None
        results = [self.run(config, images, trial) for trial in (cut, whole)]
        for name in ("status", "reason", "step", "chain"):
            assert results[0][name] == results[1][name]
        assert [state.step for state in cut.states()] == [2]

    @pytest.mark.slow
    def test_a_run_that_does_not_collapse_is_the_same_as_without(self, tiny, images, tmp_path):
        config = override(tiny, {"model.initial_deviation": 0.1, "evaluation.every": 2})
        results = [
            self.run(override(config, {"stop_when": value}), images, stored(tmp_path, value))
            for value in ("none", "collapsed")
        ]
        assert results[0]["status"] == results[1]["status"] == "finished"
        assert results[0]["chain"] == results[1]["chain"]
