"""What runs on the cluster: one trial, in its own process or in a Ray Train worker group."""

import contextlib
import functools
import os
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import ray.train
import ray.train.torch
from ray import tune
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.exceptions import (
    InsufficientClusterResourcesError,
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
)

from dashboards.tables.values import values_of
from orchestrator.driver.gauges import OF_ARMS
from orchestrator.driver.output import Output
from orchestrator.driver.preemption import ANOTHER_WAS_ASKED, Notices
from orchestrator.resources import Placement
from orchestrator.retry import Failure, PreemptedError, decide, failure_of, kind_of
from trainers.adapters.starting import starting_weights
from trainers.config import DataConfig, TrainConfig
from trainers.data.image_set import ImageSet, open_images
from trainers.errors import DinolabError, InputError, RootError, StoreError, first_line
from trainers.runs.newer_records import NewerRecords
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
    registration: str = ""
    """SHA-256 of that of the study for which it asks"""
    over: tuple[int, ...]
    """attempts that have certainly ended"""
    name: str = ""
    """of this attempt on the cluster"""
    workers: int = 1
    """as many as it gets"""
    avoided: tuple[str, ...] = ()
    """machines on which it is not to run, by Ray's identifiers"""
    config: str
    """TrainConfig as JSON"""
    planned: Planned
    cache: str
    """where data sets are indexed"""

    def stored(self) -> StoredTrial:
        """The trial in its root. Raises StoreError: the driver has opened the root before."""
        try:
            return StoredTrial(open_store(self.root), self.key)
        except RootError as error:
            raise StoreError(str(error)) from error

    def __str__(self) -> str:
        # Tune makes names of it.
        return self.key


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How an attempt ended, for the driver; travels by pickle."""

    found: Literal["finished", "held", "failed", "no room"]
    failure: Failure | None = None
    text: str = ""
    """the traceback"""
    output: str = ""
    """the last lines of what was printed"""


SHOWN = ("loss/total", "knn/cls_top1")
"""Metrics that travel to the driver for the progress display."""

TOLD = (*SHOWN, *(metric for metric in OF_ARMS if metric not in SHOWN))
"""The same, and what Prometheus is told; all others stay in the folder."""


_PLACED_WITHIN_S = 30
"""How long a group may wait for room that it need not have."""

_NO_ROOM = (
    InsufficientClusterResourcesError,
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
)
"""Ray Train's errors when workers find none, or their machine goes while they start."""

FOLLOWED_EVERY_S = 1.0
"""How often the driver is told how far a trial is."""

OUTPUT, ENDED = "output", "ended"
"""What a report to the driver holds beside a step: where the worker prints, and how it ended."""


class TuneReporter:
    """Tells Ray Tune, hence the driver, how far the trial is. A context manager.

    Tune lets who reports wait until its loop has come round: a thread does, and training does not.
    """

    def __init__(self) -> None:
        self._news: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        """See Reporter."""
        if metrics:
            self._news = {**self._news, **_shown(step, metrics)}

    def _tell(self) -> None:
        while not self._over.wait(FOLLOWED_EVERY_S):
            news, self._news = self._news, {}
            if news:
                tune.report(news)


def _shown(step: int, metrics: Mapping[str, float]) -> dict[str, float]:
    return {"step": step, **{name: metrics[name] for name in TOLD if name in metrics}}


@functools.lru_cache(maxsize=2)
def _images(data: DataConfig, cache: str) -> ImageSet:
    return open_images(data, Path(cache))


def _train(
    assignment: Assignment, world: World, reporter: Any, threads: int, output: Output
) -> bool:
    """Whether the trial has a result now; not when somebody else is at it."""
    make_reproducible(threads)
    # First: other code may not even read the configuration.
    assignment.planned.refuse_other_code()
    config = TrainConfig.model_validate_json(assignment.config)
    # Before images, whose index would make a root that has gone away anew.
    trial = assignment.stored()
    images = _images(config.data, assignment.cache)
    world.wait()  # for those whose machine takes longer
    with Notices(assignment.name):
        finished = run_trial(
            trial,
            config,
            images=images,
            world=world,
            reporter=reporter,
            planned=assignment.planned,
            starting=lambda: starting_weights(config),
            asking=Asking(
                driver=assignment.driver,
                registration=assignment.registration,
                over=assignment.over,
                waits=False,
                kind_of=kind_of,
                output=output.tail,
            ),
        )
    if finished and world.is_first:
        # Whoever reads the trial makes up for it, and tells of what is damaged.
        with contextlib.suppress(DinolabError):
            values_of(trial, trial.finished())
    return finished


def run_alone(parameters: dict[str, Any], placement: Placement) -> None:
    """A trial with one worker, in the process that Tune gave it; how it ended is reported."""
    output = Output.of_this_process()
    tune.report({OUTPUT: output})
    try:
        world = World.alone(chosen_device("cuda" if placement.gpus_per_worker else "cpu"))
        threads = placement.cpus_per_worker
        with TuneReporter() as reporter:
            done = _train(parameters["trial"], world, reporter, threads, output)
        ended = Ended(found="finished" if done else "held")
    except PreemptedError as error:
        tune.report({ENDED: _failed(error, output)})
        # Tune would keep the process for another trial.
        raise
    except Exception as error:  # noqa: BLE001 (a trial may raise anything; the policy decides)
        ended = _failed(error, output)
    tune.report({ENDED: ended})


def run(parameters: dict[str, Any], placement: Placement) -> None:
    """A trial, in the process that Tune gave it, or as a worker group under it."""
    as_group = is_group(parameters["trial"], placement)
    (run_group if as_group else run_alone)(parameters, placement)


def is_group(assignment: Assignment, placement: Placement) -> bool:
    """Whether a trial runs as a Ray Train worker group.

    So does one that is to avoid a machine: Tune would wait for another one for ever.
    """
    return placement.is_elastic or placement.workers > 1 or bool(assignment.avoided)


def run_group(parameters: dict[str, Any], placement: Placement) -> None:
    """A trial as a Ray Train worker group under this process."""
    assignment: Assignment = parameters["trial"]
    output = Output.of_this_process()
    tune.report({OUTPUT: output})
    ended = threading.Event()
    try:
        trial = assignment.stored()
    except StoreError as error:
        tune.report({ENDED: _failed(error, output)})
        return
    follower = threading.Thread(target=_follow, args=(trial, ended), daemon=True)
    follower.start()
    try:
        if _may_find_no_room(assignment, placement):
            os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(_PLACED_WITHIN_S))
        with tempfile.TemporaryDirectory(prefix="dinolab-", ignore_cleanup_errors=True) as scratch:
            _group(assignment, placement, scratch).fit()
        how = Ended(found="finished" if trial.finished() else "held")
    except Exception as error:  # noqa: BLE001 (as above)
        how = _group_failed(error, assignment, placement, output)
    finally:
        ended.set()
        follower.join()
    tune.report({ENDED: how})


def _group(assignment: Assignment, placement: Placement, scratch: str) -> TorchTrainer:
    return TorchTrainer(
        _group_worker,
        train_loop_config={"trial": assignment, "threads": placement.cpus_per_worker},
        torch_config=TorchConfig(timeout_s=int(group_timeout().total_seconds())),
        scaling_config=ray.train.ScalingConfig(
            num_workers=assignment.workers,
            use_gpu=placement.gpus_per_worker > 0,
            resources_per_worker=placement.asked(placement.group_cpus),
            placement_strategy=placement.strategy,
            label_selector=labels_of(assignment, placement) or None,  # type: ignore[call-arg]
        ),
        run_config=ray.train.RunConfig(
            name=f"workers-{assignment.key}",
            storage_path=scratch,
            # Ray Train waits for ever: what may be had for less is then asked for anew.
            failure_config=ray.train.FailureConfig(
                # type: ignore[call-arg]
                controller_failure_limit=0 if _may_find_no_room(assignment, placement) else -1
            ),
        ),
    )


def _group_failed(
    error: Exception, assignment: Assignment, placement: Placement, output: Output
) -> Ended:
    no_room = getattr(error, "controller_failure", None)
    if isinstance(no_room, _NO_ROOM) and _may_find_no_room(assignment, placement):
        said = Failure(kind="infrastructure", message=first_line(no_room), again=True)
        return Ended(found="no room", failure=said)
    failures = getattr(error, "worker_failures", {})
    return _failed(cause([failures[rank] for rank in sorted(failures)] or [error]), output)


def _may_find_no_room(assignment: Assignment, placement: Placement) -> bool:
    """Whether a group asks for more than it must have: more workers, or other machines."""
    return assignment.workers > placement.workers or bool(assignment.avoided)


def labels_of(assignment: Assignment, placement: Placement) -> dict[str, str]:
    """Labels of the machines on which an attempt may run, as Ray selects them."""
    but = {"ray.io/node-id": f"!in({','.join(assignment.avoided)})"} if assignment.avoided else {}
    return {**placement.labels, **but}


def _failed(error: Exception, output: Output) -> Ended:
    text = "".join(traceback.format_exception(error))
    return Ended(found="failed", failure=failure_of(error), text=text, output=output.tail())


def _follow(trial: StoredTrial, ended: threading.Event) -> None:
    """Tell Tune what a worker group writes to its folder, until it has ended.

    Ray's own way from a group to Tune, `TuneReportCallback`, blocks for ever when training ends
    before Tune has fetched its last report, and holds every worker up until it has fetched each.
    """
    newer, last, over = NewerRecords(trial), -1, False
    while not over:
        over = ended.wait(FOLLOWED_EVERY_S)
        # A damaged file is for the driver to tell, and the group may yet write it anew; a root that
        # does not answer may answer the next time.
        with contextlib.suppress(InputError, StoreError):
            for step, metrics in newer.read()[0]:
                if step > last:
                    tune.report(_shown(step, metrics))
                    last = step


def _group_worker(parameters: dict[str, Any]) -> None:
    output = Output.of_this_process()
    world = World.joined(ray.train.torch.get_device())
    _train(parameters["trial"], world, Fanout(), parameters["threads"], output)


def cause(errors: Sequence[Exception]) -> Exception:
    """Which of the workers' errors the others come of: the first that a retry does not help.

    Else the first of a worker that knows why.
    """
    given_up = [error for error in errors if decide(error) == "give up"]
    knowing = [error for error in errors if not str(error).startswith(ANOTHER_WAS_ASKED)]
    return (given_up or knowing or errors)[0]
