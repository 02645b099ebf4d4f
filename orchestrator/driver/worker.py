"""What runs on the cluster: one trial, in its own process or in a Ray Train worker group."""

import contextlib
import functools
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
from ray import tune
from ray.train.torch import TorchConfig, TorchTrainer

from dashboards.tables.values import values_of
from orchestrator.resources import Placement
from orchestrator.retry import decide
from trainers.adapters.starting import starting_weights
from trainers.config import DataConfig, TrainConfig
from trainers.data.image_set import ImageSet, open_images
from trainers.errors import DinolabError, InputError
from trainers.runs.attempt import record_failure
from trainers.runs.reporters import Fanout
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import Asking, Planned, run_trial
from trainers.system.store import open_store
from trainers.system.world import World, chosen_device, group_timeout, make_reproducible


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a worker needs to know of a trial; travels by pickle."""

    root: str
    """of the run"""
    key: str
    driver: str
    """who asks"""
    config: str
    """TrainConfig as JSON"""
    planned: Planned
    cache: str
    """where data sets are indexed"""

    def stored(self) -> StoredTrial:
        """The trial in its root."""
        return StoredTrial(open_store(self.root), self.key)


SHOWN = ("loss/total", "knn/cls_top1")
"""Metrics that travel to the driver for the progress display; all others stay in the folder."""


FOLLOWED_EVERY_S = 1.0
"""How often the records of a worker group are looked at."""


class TuneReporter:
    """Tells Ray Tune, hence the driver, how far the trial is."""

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        """See Reporter."""
        if metrics:
            shown = {name: metrics[name] for name in SHOWN if name in metrics}
            tune.report({"step": step, **shown})


@functools.lru_cache(maxsize=2)
def _images(data: DataConfig, cache: str) -> ImageSet:
    return open_images(data, Path(cache))


def _train(assignment: Assignment, world: World, reporter: Any, threads: int) -> None:
    make_reproducible(threads)
    # First: other code may not even read the configuration.
    assignment.planned.refuse_other_code()
    config = TrainConfig.model_validate_json(assignment.config)
    images = _images(config.data, assignment.cache)
    world.wait()  # for those whose machine takes longer
    trial = assignment.stored()
    finished = run_trial(
        trial,
        config,
        images=images,
        world=world,
        reporter=reporter,
        planned=assignment.planned,
        starting=lambda: starting_weights(config),
        asking=Asking(driver=assignment.driver),
    )
    if finished and world.is_first:
        # Whoever reads the trial makes up for it, and tells of what is damaged.
        with contextlib.suppress(DinolabError):
            values_of(trial, trial.finished())


def run_alone(parameters: dict[str, Any], placement: Placement) -> None:
    """A trial with one worker, in the process that Tune gave it."""
    assignment: Assignment = parameters["trial"]
    try:
        world = World.alone(chosen_device("cuda" if placement.gpus_per_worker else "cpu"))
        _train(assignment, world, TuneReporter(), placement.cpus_per_worker)
    except Exception as error:  # noqa: BLE001 (a trial may raise anything; the policy decides)
        _settle(assignment, error)


def run_group(parameters: dict[str, Any], placement: Placement) -> None:
    """A trial with several workers: a Ray Train worker group under this process."""
    assignment: Assignment = parameters["trial"]
    trainer = TorchTrainer(
        _group_worker,
        train_loop_config={"trial": assignment, "threads": placement.cpus_per_worker},
        torch_config=TorchConfig(timeout_s=int(group_timeout().total_seconds())),
        scaling_config=ray.train.ScalingConfig(
            num_workers=placement.workers,
            use_gpu=placement.gpus_per_worker > 0,
            resources_per_worker={
                "CPU": placement.group_cpus,
                **({"GPU": 1} if placement.gpus_per_worker else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            name=f"workers-{assignment.key}",
            storage_path=tempfile.gettempdir(),
        ),
    )
    ended = threading.Event()
    follower = threading.Thread(target=_follow, args=(assignment.stored(), ended), daemon=True)
    follower.start()
    try:
        trainer.fit()
    except Exception as error:  # noqa: BLE001 (as above)
        failures = getattr(error, "worker_failures", {})
        _settle(assignment, cause([failures[rank] for rank in sorted(failures)] or [error]))
    finally:
        ended.set()
        follower.join()


def _follow(trial: StoredTrial, ended: threading.Event) -> None:
    """Tell Tune what a worker group writes to its folder, until it has ended.

    Ray's own way from a group to Tune, `TuneReportCallback`, blocks for ever when training ends
    before Tune has fetched its last report, and holds every worker up until it has fetched each.
    """
    reporter, last, over = TuneReporter(), -1, False
    while not over:
        over = ended.wait(FOLLOWED_EVERY_S)
        # A damaged file is for the driver to tell, and the group may yet write it anew.
        with contextlib.suppress(InputError):
            for step, metrics in trial.records():
                if step > last:
                    reporter.report(step, metrics)
                    last = step


def _group_worker(parameters: dict[str, Any]) -> None:
    world = World.joined(ray.train.torch.get_device())
    _train(parameters["trial"], world, Fanout(), parameters["threads"])


def cause(errors: Sequence[Exception]) -> Exception:
    """Which of the workers' errors the others come of: the first that a retry does not help."""
    return next((error for error in errors if decide(error) == "give up"), errors[0])


def _settle(assignment: Assignment, error: Exception) -> None:
    """Record the error; raise it again only when the policy says that a retry may help."""
    record_failure(assignment.stored(), assignment.driver, decide(error), error)
    if decide(error) == "retry":
        raise error
