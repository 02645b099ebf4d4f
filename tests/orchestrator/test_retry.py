"""What an error of a trial leads to."""

from dataclasses import replace
from pathlib import Path

import pytest
import ray.exceptions
import torch

from orchestrator.retry import (
    SAID,
    Failure,
    PreemptedError,
    Retry,
    decide,
    failure_of,
    kind_of,
    settle,
)
from trainers.config import TrainConfig, override
from trainers.errors import CheckpointError, LostWorkerError, StoreError, UnwrittenError


def full_disk():
    with Path("/dev/full").open("w") as file:
        file.write("x")
        file.flush()


def unwritten():
    try:
        full_disk()
    except OSError as error:
        raise UnwrittenError("the checkpoint of step 4 could not be written") from error


def unwritten_to_a_root_that_is_away():
    try:
        raise StoreError("the run root does not answer")
    except StoreError as error:
        raise UnwrittenError("the checkpoint of step 4 could not be written") from error


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


def raised_by(provoke):
    with pytest.raises(Exception) as caught:  # noqa: PT011 (each another kind)
        provoke()
    return caught.value


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
    assert decide(raised_by(provoke)) == decision


def test_a_checkpoint_that_could_not_be_written_is_tried_again_and_a_corrupt_one_is_not():
    assert decide(UnwrittenError("the checkpoint of step 4 could not be written")) == "retry"
    assert decide(CheckpointError("the checkpoint is corrupt")) == "give up"


@pytest.mark.parametrize(
    ("provoke", "kind"),
    [
        (full_disk, "infrastructure"),
        (dead_worker, "infrastructure"),
        (lost_peer, "infrastructure"),
        (lost_worker, "infrastructure"),
        (full_gpu, "user"),
        (full_machine, "user"),
        (wrong_value, "user"),
        (wrong_shapes, "ours"),
    ],
)
def test_whose_an_error_is_to_mend_is_said(provoke, kind):
    error = raised_by(provoke)
    assert kind_of(error) == kind
    assert str(failure_of(error)).endswith(f"({SAID[kind]})")


@pytest.mark.parametrize("provoke", [unwritten, unwritten_to_a_root_that_is_away])
def test_trouble_of_the_root_is_everyones_also_behind_an_error_of_ours(provoke):
    with pytest.raises(UnwrittenError) as caught:
        provoke()
    assert failure_of(caught.value).of_the_root
    assert failure_of(StoreError("the run root does not answer")).of_the_root
    assert not failure_of(LostWorkerError("another worker has ended")).of_the_root


LOST = Failure(kind="infrastructure", message="lost", again=True)


def rests(*attempts):
    """What follows each attempt: the rest before the next in seconds, or None for giving up."""
    in_a_row, followed = 0, []
    for failure, new_checkpoint in attempts:
        settled = settle(in_a_row, failure, new_checkpoint=new_checkpoint)
        in_a_row = settled.in_a_row
        followed.append(settled.after_s if isinstance(settled, Retry) else None)
    return followed


def test_only_attempts_in_a_row_without_a_new_checkpoint_use_up_the_budget():
    assert rests(*[(LOST, False)] * 3) == [2, 8, None]
    assert None not in rests(*[(LOST, True)] * 50)
    assert rests((LOST, False), (LOST, False), (LOST, True), (LOST, False)) == [2, 8, 2, 2]


def test_preemption_costs_nothing():
    preempted = failure_of(PreemptedError("its machine is to be taken away"))
    assert str(preempted) == "its machine is to be taken away (of the machines)"
    assert None not in rests(*[(preempted, False)] * 50)
    assert rests((LOST, False), (LOST, False), *[(preempted, False)] * 9, (LOST, False))[-1] is None


def test_an_attempt_over_its_time_counts_even_with_a_new_checkpoint():
    late = replace(LOST, over_time=True)
    assert rests(*[(late, True)] * 3) == [2, 8, None]


def test_what_the_same_input_would_raise_again_is_given_up_at_once():
    assert rests((replace(LOST, again=False), True)) == [None]
