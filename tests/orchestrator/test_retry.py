"""What an error of a trial leads to."""

from pathlib import Path

import pytest
import ray.exceptions
import torch

from orchestrator.retry import decide
from trainers.config import TrainConfig, override
from trainers.errors import CheckpointError, LostWorkerError, UnwrittenError


def full_disk():
    with Path("/dev/full").open("w") as file:
        file.write("x")
        file.flush()


def lost_folder():
    Path("/proc/1/nowhere/metrics.jsonl").read_text()


def wrong_shapes():
    torch.ones(2, 3) @ torch.ones(2, 3)


def wrong_value():
    override(TrainConfig(), {"steps": -1})


def dead_worker():
    raise ray.exceptions.ActorDiedError


def full_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def full_machine():
    torch.empty(2**60, dtype=torch.uint8)


def lost_peer():
    # What gloo said when a worker of two was killed.
    raise RuntimeError(
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer "
        "[127.0.0.1]:40231"
    )


def lost_worker():
    raise LostWorkerError("another worker of this run has ended")


@pytest.mark.parametrize(
    ("provoke", "decision"),
    [
        (full_disk, "retry"),
        (lost_folder, "retry"),
        (dead_worker, "retry"),
        (lost_peer, "retry"),
        (lost_worker, "retry"),
        (full_gpu, "give up"),
        (full_machine, "give up"),
        (wrong_shapes, "give up"),
        (wrong_value, "give up"),
    ],
)
def test_only_what_may_go_better_next_time_is_retried(provoke, decision):
    with pytest.raises(Exception) as caught:  # noqa: PT011 (each another kind)
        provoke()
    assert decide(caught.value) == decision


def test_a_checkpoint_that_could_not_be_written_is_tried_again_and_a_corrupt_one_is_not():
    assert decide(UnwrittenError("the checkpoint of step 4 could not be written")) == "retry"
    assert decide(CheckpointError("the checkpoint is corrupt")) == "give up"
