"""One run: attempts at it, each from where the last one stopped, and one result."""

import contextlib
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from trainers.config import TrainConfig, trial_content
from trainers.config.size import remedy_of_step
from trainers.data.image_set import ImageSet
from trainers.errors import (
    CheckpointError,
    DinolabError,
    InputError,
    LostWorkerError,
    PlanError,
    StoreError,
    UnwrittenError,
    listed,
)
from trainers.runs.attempt import Attempt, claimed, scratch_folder
from trainers.runs.lease import Outcome
from trainers.runs.machine import machine_of
from trainers.runs.origin import Origin, drop, fetched, origin, path_of
from trainers.runs.reporters import Fanout
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.version import code_versions, differing
from trainers.system.memory import memory_explained
from trainers.system.world import World, lost_workers_named
from trainers.training import checkpoint
from trainers.training.loop import train
from trainers.training.reporter import Reporter
from trainers.training.starting import Starting


def trial_key(config: TrainConfig, dataset_digest: str) -> str:
    """Name of a run by its content: configuration with seed, data and code; 16 hex digits.

    The path of the data does not count, its digest does: a moved folder is the same data.
    """
    return next(trial_keys(config, dataset_digest, [config.seed]))


def trial_keys(config: TrainConfig, dataset_digest: str, seeds: Iterable[int]) -> Iterator[str]:
    """Names of the runs of `config` that differ in nothing but the seed."""
    return keys_of(trial_content(config), dataset_digest, seeds, code_versions())


def keys_of(
    content: Mapping[str, Any], dataset_digest: str, seeds: Iterable[int], code: Mapping[str, str]
) -> Iterator[str]:
    """The same of a configuration's content, as code of those versions names them."""
    parts = [{**content, "seed": None}, dataset_digest, dict(code)]
    canonical = json.dumps(parts, sort_keys=True)
    before, seed_is, after = canonical.partition('"seed": null')
    begun = hashlib.sha256(before.encode())
    for seed in seeds:
        whole = begun.copy()
        whole.update(f"{seed_is.removesuffix('null')}{seed}{after}".encode())
        yield whole.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What a run was planned to be: its key, and what that was made of beside a configuration."""

    key: str
    digest: str
    """of the data"""
    code: Mapping[str, str]
    """version of each module, as `code_versions` gives it"""

    def refuse_other_code(self) -> None:
        """Raises PlanError, one line, where this process runs other code than was planned."""
        if other := differing(self.code, code_versions()):
            raise PlanError(
                f"planned with other code than this worker has, which differs in {listed(other)}; "
                "install one version of dinolab on every node, and run the same command again"
            )

    def refuse_another(self, config: TrainConfig, digest: str) -> None:
        """Raises PlanError, one line, where configuration, data or code are not as planned."""
        self.refuse_other_code()
        if digest != self.digest:
            raise PlanError(
                f"planned on data {self.digest[:12]}, but this worker finds {digest[:12]} at "
                f"{config.data.source}: the data have changed since, or are others on this node; "
                "bring back what was planned, or give the new data a study or --root of their own"
            )
        if (key := trial_key(config, digest)) != self.key:
            raise PlanError(
                f"planned as run {self.key}, but this worker makes {key} of its configuration; "
                "run the same command again"
            )


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Who asks for an attempt, and what that one knows of those before."""

    driver: str = ""
    """its name; empty for a run of its own"""
    registration: str = ""
    """SHA-256 of what a study stated before it asked; empty for a run of its own"""
    over: Collection[int] = ()
    """attempts that are known to have ended"""
    waits: bool = True
    """for whoever is at the trial; else it is left to them"""
    kind_of: Callable[[BaseException], str] = lambda _: ""
    """whose fault an error is"""
    say: Callable[[str], None] = lambda _: None
    """takes a line for a person"""
    output: Callable[[], str] = str
    """the last lines that this process has printed"""


class _SupersededError(DinolabError):
    """Somebody has taken this attempt for dead, and begun another."""


def run_trial(
    trial: StoredTrial,
    config: TrainConfig,
    *,
    images: ImageSet,
    world: World,
    reporter: Reporter,
    planned: Planned | None = None,
    starting: Callable[[], Starting | None] = lambda: None,
    step_done: Callable[[], None] = lambda: None,
    asking: Asking = Asking(),
) -> bool:
    """Train to the end, from the last checkpoint that is whole, and put the result.

    `starting` gives the weights that `model.weights` names; it is asked where there is no
    checkpoint. `step_done` is called after each update.

    Every worker calls this. True when the trial has a result, this one or another's; False when
    somebody else is at it. Raises PlanError, before anything is trained, where a worker has other
    data or other code than was planned, or than the other workers have; OutOfMemoryError, with the
    knobs to change; LostWorkerError; StoreError.
    """
    attempt, claim = _claimed(trial, config, world, asking)
    if claim.found != "ours":
        return claim.found == "finished"

    def trained() -> dict[str, Any]:
        _refuse_another(config, images, world, planned)
        with scratch_folder() as scratch:
            local = trial.store.local
            folder = local / trial.attempt_folder(claim.number) if local else scratch
            try:
                return _trained(
                    trial,
                    config,
                    images,
                    world,
                    reporter,
                    starting,
                    step_done,
                    attempt,
                    folder,
                    asking,
                )
            except UnwrittenError:
                # A root that is gone has a line of its own.
                trial.store.get(trial.config_key)
                raise
            finally:
                drop(folder)

    if attempt is None:  # not the first worker
        trained()
        return True
    outcome: Outcome = "failed"
    try:
        outcome = "finished" if attempt.commit(trained()) else "superseded"
    except _SupersededError:
        outcome = "superseded"
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    except BaseException as error:
        with contextlib.suppress(StoreError):
            attempt.fail(asking.kind_of(error), error, asking.output())
        raise
    else:
        return True
    finally:
        attempt.end(outcome)
    if not asking.waits:
        return trial.finished() is not None
    # Who waits for others waits for the one that has begun, too.
    return run_trial(
        trial,
        config,
        images=images,
        world=world,
        reporter=reporter,
        planned=planned,
        starting=starting,
        step_done=step_done,
        asking=asking,
    )


class _Claim(NamedTuple):
    """What the first worker has found, and tells the others."""

    found: Literal["ours", "finished", "held", "refused"]
    number: int
    """of our attempt"""


def _claimed(
    trial: StoredTrial, config: TrainConfig, world: World, asking: Asking
) -> tuple[Attempt | None, _Claim]:
    """The attempt, on the first worker, and what all are told of it."""
    attempt, claim = None, _Claim("refused", 0)
    try:
        if world.is_first:
            if config.compute.sharded and world.size > 1 and trial.store.local is None:
                raise InputError(
                    "compute.sharded writes parts of a checkpoint, which several workers can only "
                    f"do to a path that they share, not to {trial.store.shown}: give such a --root"
                )
            attempt = claimed(
                trial,
                steps=config.steps,
                driver=asking.driver,
                over=asking.over,
                waits=asking.waits,
                say=asking.say,
            )
            if attempt is not None:
                claim = _Claim("ours", attempt.number)
            else:
                claim = _Claim("finished" if trial.finished() else "held", 0)
    finally:
        # After an error as well: the others wait for an answer.
        try:
            claim = world.told(claim)
        except BaseException:
            if attempt is not None:
                attempt.end("failed")
            raise
    if claim.found == "refused":
        raise LostWorkerError(f"the first worker cannot use {trial.shown}, and says why")
    return attempt, claim


def _refuse_another(
    config: TrainConfig, images: ImageSet, world: World, planned: Planned | None
) -> None:
    number = int(trial_key(config, images.digest)[:15], 16)
    # All workers come here first, so that none waits for one that has refused.
    numbers = world.gather(torch.tensor([number], device=world.device))
    if planned is not None:
        planned.refuse_another(config, images.digest)
    if (numbers != number).any():
        raise PlanError(
            "the workers of this run have not all the same data and code; give them one data set "
            "and one version of dinolab, and run the same command again"
        )


def _origin(trial: StoredTrial, world: World, folder: Path) -> tuple[Origin, Path | None]:
    """Where to start, as the first worker finds it, told to all; and the checkpoint, fetched."""
    found: Origin | None = None
    try:
        if world.is_first:
            found = origin(trial, folder)
    finally:
        found = world.told(found)
    if found is None:
        raise LostWorkerError(f"the first worker cannot read {trial.shown}, and says why")
    if found.state is None:
        return found, None
    if not world.is_first and trial.store.local is None:
        return found, fetched(trial, found.state, folder)
    path = path_of(found.state, folder)
    if not path.exists():
        raise CheckpointError(
            f"the first worker goes on from step {found.state.step}, but this one finds no {path};"
            " give all workers one shared folder"
        )
    return found, path


def _trained(
    trial: StoredTrial,
    config: TrainConfig,
    images: ImageSet,
    world: World,
    reporter: Reporter,
    starting: Callable[[], Starting | None],
    step_done: Callable[[], None],
    attempt: Attempt | None,
    folder: Path,
    asking: Asking,
) -> dict[str, Any]:
    """What the result says of the training, apart from the attempt's files."""
    started = time.monotonic()
    start, resume_from = _origin(trial, world, folder)
    if world.is_first:
        for line in start.damaged:
            asking.say(line)
    first = 0 if start.state is None else start.state.step
    machine = {**machine_of(world.device), "workers": world.size}
    if resume_from is not None:
        checkpoint.refuse_another(resume_from, config)
    if attempt is not None:
        attempt.begin(start, config, machine, asking.registration)
        reporter = Fanout(attempt.records, reporter)
        step_done = _noted(attempt, first, step_done, alone=world.size == 1)
    with memory_explained("a training step", remedy_of_step(config)), lost_workers_named():
        result = train(
            config,
            images=images,
            world=world,
            reporter=reporter,
            checkpoints=folder,
            resume_from=resume_from,
            starting=None if resume_from else starting(),
            step_done=step_done,
            keeper=attempt,
        )
    return {
        "status": result.status,
        "reason": result.reason,
        "step": result.step,
        "steps": config.steps,
        "chain": result.chain,
        "resumed_at": first,
        "wall_s": round(time.monotonic() - started, 3),
        **machine,
        "earlier_machines": [] if attempt is None else attempt.machines[:-1],
        "registrations": [] if attempt is None else attempt.registrations,
        "data": images.digest,
        "code": dict(code_versions()),
        "damaged": list(start.damaged),
    }


def _noted(
    attempt: Attempt, first: int, step_done: Callable[[], None], *, alone: bool
) -> Callable[[], None]:
    """What notes in the lease how far the run is, after each update."""
    steps = itertools.count(first + 1)

    def done() -> None:
        attempt.held.at(next(steps))
        # Several workers cannot stop at one's word; what they put then counts for nothing.
        if alone and attempt.held.superseded:
            raise _SupersededError(f"{attempt.prefix}: another attempt at this run has begun")
        step_done()

    return done
