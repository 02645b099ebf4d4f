"""Workers in processes of their own, as a test needs them."""

import contextlib
import functools
import multiprocessing
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.trainers.method.test_sites import batch
from trainers.config import TrainConfig
from trainers.data.image_set import open_images
from trainers.evaluation.evaluate import evaluate
from trainers.system.world import World, group_timeout, here
from trainers.training import checkpoint, stopping
from trainers.training.loop import train
from trainers.training.state import TrainState
from trainers.training.step import update

TIMEOUT_S = 2
"""Of the group whose evaluation takes longer."""


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


def records_and_types(job, world):
    """What is reported, and types in one more update: of parameters as modules use them by name,
    and of all that stays."""
    found = records(job, world)
    state = TrainState.fresh(job.config, world, 10)
    used = {}
    for name, module in state.student.named_modules():

        def keep(module, _, name=name):
            own = module.named_parameters(recurse=False)
            used.update({f"{name}.{one}": parameter.dtype for one, parameter in own})

        module.register_forward_pre_hook(keep)
    update(state, batch(world.rank), job.config, world)
    kept = list(state.student.parameters())
    kept += [parameter.grad for parameter in kept if parameter.grad is not None]
    kept += [moment for moments in state.optimizer.state.values() for moment in moments.values()]
    return found, used, {one.dtype for one in kept}


def step_saved_after_a_signal(job, world):
    """Where the training of `job` ends when the second worker gets SIGTERM at step 0."""
    stopping.listen()

    class Ask:
        def report(self, step, metrics, *, checkpoint=None):
            if world.rank == 1 and step == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    with contextlib.suppress(stopping.Interrupted):
        train(
            job.config,
            images=open_images(job.config.data, job.folder),
            world=world,
            reporter=Ask(),
            checkpoints=job.folder,
            resume_from=None,
        )
    world.wait()
    return checkpoint.saved_step(checkpoint.newest(job.folder))


def metrics_of_each(job, world):
    """What each worker finds in an evaluation of fresh networks, of each image, and of a few."""
    images = open_images(job.config.data, job.folder)
    state = TrainState.fresh(job.config, world, 10)
    state.step = job.config.steps
    whole = state.unsharded(job.config, world, 10)
    by_image, maps = {}, {}
    metrics = evaluate(whole, images, job.config, world=world, by_image=by_image, maps=maps)
    arrays = [{name: one.numpy() for name, one in kept.items()} for kept in (by_image, maps)]
    return world.of_each((metrics, *arrays))


def seconds_of_an_evaluation(job, world):
    """How long one takes that lasts at least three timeouts of the group, which it outlives."""
    images = open_images(job.config.data, job.folder)
    state = TrainState.fresh(job.config, world, 10)
    state.step = 1

    def evaluated():
        started = time.monotonic()
        evaluate(state, images, job.config, world=world)
        world.wait()
        return time.monotonic() - started

    while (took := world.told(evaluated())) < 3 * TIMEOUT_S:
        images.train = images.train.repeat(3)
    return took


@functools.cache
def _forks() -> Any:
    # Of a process that has everything imported, and trains nothing itself.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _member(rank, size, port, task, jobs, queue, environment):
    os.environ.update(environment)
    torch.set_num_threads(1)
    # Workers find each other in their own time, however short that of the group is.
    store = torch.distributed.TCPStore("127.0.0.1", port, size, is_master=rank == 0)
    torch.distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=size, timeout=group_timeout()
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
    queue = _forks().Queue()
    given = (size, port, task, jobs, queue, dict(os.environ))
    members = [
        _forks().Process(target=_member, args=(rank, *given), daemon=True) for rank in range(size)
    ]
    for member in members:
        member.start()
    found = dict(queue.get(timeout=240) for _ in members[:answers])
    for member in members:
        member.join()
    failures = {rank: text for rank, text in found.items() if isinstance(text, str)}
    assert not failures, failures
    return found[0]
