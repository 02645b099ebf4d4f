"""What workers wait for, what they are told, and what is refused before they start."""

import os
import time

import pytest
import torch

from tests.trainers.training.workers import Job, run_group
from trainers.config import TrainConfig
from trainers.errors import ConfigError, LostWorkerError
from trainers.system.world import World, chosen_device, group_timeout

JOB = Job(config=TrainConfig(), folder="unused")


def wait_for_the_first(_job, world):
    started = time.monotonic()
    if world.is_first:
        time.sleep(3)
    world.wait()
    total = world.sum(torch.ones(1)).item()
    return time.monotonic() - started, total


def outlive_the_second(_job, world):
    if not world.is_first:
        os._exit(9)
    with pytest.raises(LostWorkerError, match="another worker of this run has ended"):
        world.wait()
    return "noticed"


def be_told(_job, world):
    told = world.told({"step": 40} if world.is_first else None)
    # All workers' answers, on the first.
    return world.gather(torch.tensor([told["step"]])).tolist()


@pytest.mark.slow
def test_workers_wait_for_one_alone_three_times_longer_than_the_timeout_of_their_group(monkeypatch):
    monkeypatch.setenv("DINOLAB_GROUP_TIMEOUT_S", "1")
    took, total = run_group(2, JOB, task=wait_for_the_first)[0]
    assert took > 3
    assert total == 2


@pytest.mark.slow
def test_a_worker_that_dies_is_noticed_by_who_waits_for_it():
    assert run_group(2, JOB, task=outlive_the_second, answers=1) == ["noticed"]


@pytest.mark.slow
def test_all_workers_are_told_what_the_first_has_found():
    assert run_group(2, JOB, task=be_told) == [[40, 40]]


def test_a_worker_alone_tells_itself():
    assert World.alone(torch.device("cpu")).told("anything") == "anything"


@pytest.mark.parametrize("given", ["soon", "0", "-3", "nan", "inf", "1e9"])
def test_a_timeout_that_is_none_is_refused(monkeypatch, given):
    monkeypatch.setenv("DINOLAB_GROUP_TIMEOUT_S", given)
    with pytest.raises(ConfigError, match=f"DINOLAB_GROUP_TIMEOUT_S={given}: give seconds, from 1"):
        group_timeout()


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="--device cuda: PyTorch finds no GPU here"):
        chosen_device("cuda")
    assert chosen_device("auto") == chosen_device("cpu") == torch.device("cpu")


def test_more_workers_than_gpus_of_a_machine_are_refused(monkeypatch):
    for name, value in {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(ConfigError, match="4 workers on this machine, but 2 GPUs: start 2"),
        World.launched(torch.device("cuda")),
    ):
        pass
