"""Workers in processes of their own, as a test needs them."""

import multiprocessing
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import torch

from trainers.config import TrainConfig
from trainers.data.image_set import open_images
from trainers.system.world import World, group_timeout, here
from trainers.training.loop import train
from trainers.training.state import TrainState


@dataclass(frozen=True)
class Job:
    """One run: its configuration, the folder of its checkpoints, and where it goes on from."""

    config: TrainConfig
    folder: Path
    resume_from: Path | None = None


def held_parameters(job, world):
    """How many of the student's parameters this worker holds."""
    student = TrainState.fresh(job.config, world, 10).student
    return sum(part.numel() for part in here(student.parameters()))


def records(job, world):
    """What the training of `job` reports."""
    found = []

    class Keep:
        def report(self, step, metrics, *, checkpoint=None):
            found.append((step, dict(metrics)))

    train(
        job.config,
        images=open_images(job.config.data, job.folder),
        world=world,
        reporter=Keep(),
        checkpoints=job.folder,
        resume_from=job.resume_from,
    )
    return found


def records_and_held(job, world):
    """Both of these."""
    return records(job, world), held_parameters(job, world)


def _member(rank, size, port, task, jobs, queue):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", rank=rank, world_size=size, timeout=group_timeout()
    )
    try:
        world = World.joined(torch.device("cpu"))
        queue.put((rank, [task(job, world) for job in jobs]))
    except BaseException as error:
        queue.put((rank, f"{type(error).__name__}: {error}"))
        raise
    finally:
        torch.distributed.destroy_process_group()


def run_group(size, *jobs, task=records, answers=None):
    """Of each job, what `task` finds on the first of `size` workers that do it together on gloo.

    `answers` is how many of them come to the end, if not all.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    members = [
        context.Process(target=_member, args=(rank, size, port, task, jobs, queue), daemon=True)
        for rank in range(size)
    ]
    for member in members:
        member.start()
    found = dict(queue.get(timeout=240) for _ in members[:answers])
    for member in members:
        member.join()
    failures = {rank: text for rank, text in found.items() if isinstance(text, str)}
    assert not failures, failures
    return found[0]
