"""One run on disk: its folder, the lock that fences attempts, and resuming where it stopped."""

import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainers.config import TrainConfig, trial_content
from trainers.config.size import remedy_of_step
from trainers.data.image_set import ImageSet
from trainers.errors import CheckpointError, InputError, PlanError, listed
from trainers.runs.machine import machine_of
from trainers.runs.reporters import Fanout, JsonLines
from trainers.runs.version import code_versions, differing
from trainers.system.atomic import read_object, replace_json
from trainers.system.memory import memory_explained
from trainers.system.world import World, lost_workers_named
from trainers.training import checkpoint
from trainers.training.loop import train
from trainers.training.reporter import Reporter
from trainers.training.starting import Starting

RESULT_STATUSES = ("finished", "collapsed", "diverged")

_ANEW, _FINISHED, _REFUSED = -1, -2, -3
"""What the first worker tells the others, where it is no step to go on from."""


def trial_key(config: TrainConfig, dataset_digest: str) -> str:
    """Name of a run by its content: configuration with seed, data and code; 16 hex digits.

    The path of the data does not count, its digest does: a moved folder is the same data.
    """
    content = [trial_content(config), dataset_digest, dict(code_versions())]
    canonical = json.dumps(content, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


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


class TrialFolder:
    """`config.json`, `metrics.jsonl`, `result.json`, `failure.json` and `checkpoint/` of a run.

    `machines.json` lists what its attempts have computed on up to the checkpoint, each once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.result = path / "result.json"
        self.failure = path / "failure.json"
        self.machines = path / "machines.json"
        self.checkpoints = path / "checkpoint"

    def finished(self) -> dict[str, Any] | None:
        """The result, or None while there is none; a collapsed or diverged run is finished.

        Raises InputError, one line, when it is damaged.
        """
        if not self.result.is_file():
            return None
        result = read_object(self.result)
        if (
            result.get("status") not in RESULT_STATUSES
            or not isinstance(result.get("step"), int)
            or not isinstance(result.get("steps"), int)
        ):
            raise InputError(
                f"{self.result} is corrupt: status must be one of {', '.join(RESULT_STATUSES)}, "
                "and step and steps whole numbers; restore the file, or remove it and run again"
            )
        return result

    def failed(self) -> str | None:
        """Why the last attempt ended without a result, or None. Raises InputError, one line."""
        if not self.failure.is_file():
            return None
        return str(read_object(self.failure).get("message", "no message"))

    def fail(self, message: str) -> None:
        """Record why the last attempt ended without a result."""
        replace_json(self.failure, {"message": message})

    def machines_before(self) -> list[dict[str, Any]]:
        """What earlier attempts have computed on, as `machine_of` says it; empty if unknown.

        Raises InputError, one line, when it is damaged.
        """
        if not self.machines.is_file():
            return []
        try:
            found = json.loads(self.machines.read_bytes())
        except ValueError:
            found = None
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise InputError(
                f"{self.machines} is corrupt: not a list of JSON objects; restore the file, or "
                "remove the folder of this run and run it again"
            )
        return found

    def checkpoint_step(self) -> int | None:
        """The step of the last checkpoint, or None when there is no readable one."""
        saved = checkpoint.newest(self.checkpoints)
        return None if saved is None else checkpoint.saved_step(saved)

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """Hold the trial for one attempt; waits while another process is at it.

        The system lets go of the lock when its holder dies, so a kill leaves nothing to clean up.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def run_trial(
    folder: TrialFolder,
    config: TrainConfig,
    *,
    images: ImageSet,
    world: World,
    reporter: Reporter,
    planned: Planned | None = None,
    starting: Callable[[], Starting | None] = lambda: None,
    step_done: Callable[[], None] = lambda: None,
) -> None:
    """Train to the end, from the last checkpoint if there is one, and write the result.

    `starting` gives the weights that `model.weights` names; it is asked where there is no
    checkpoint. `step_done` is called after each update.

    Every worker calls this. What is finished already is left alone. Raises PlanError, before
    anything is written, where a worker has other data or other code than was planned, or than the
    other workers have; OutOfMemoryError, with the knobs to change; LostWorkerError.
    """
    _refuse_another(config, images, world, planned)
    if not world.is_first:
        world.wait()
        _attempt(folder, config, images, world, reporter, starting, step_done)
        return
    with folder.fenced():
        world.wait()
        _attempt(folder, config, images, world, reporter, starting, step_done)


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


def _agreed(folder: TrialFolder, world: World) -> int:
    """The step to go on from, _ANEW or _FINISHED: what the first worker finds, told to all."""
    found = _REFUSED
    try:
        if world.is_first:
            step = folder.checkpoint_step()
            found = _FINISHED if folder.finished() else _ANEW if step is None else step
    finally:
        # An error as well: the others wait for an answer.
        found = world.told(found)
    if found == _REFUSED:
        raise InputError(f"the first worker cannot use {folder.path}, and says why")
    return found


def _checkpoint_of(folder: TrialFolder, config: TrainConfig, step: int) -> Path:
    """The checkpoint to go on from, as this worker finds it."""
    found = checkpoint.newest(folder.checkpoints)
    if found is None or (own := checkpoint.saved_step(found)) != step:
        raise CheckpointError(
            f"the first worker goes on from step {step}, but this one finds "
            f"{'no checkpoint' if found is None else f'that of step {own}'} in "
            f"{folder.checkpoints}; give all workers one shared folder"
        )
    checkpoint.refuse_another(found, config)
    return found


def _attempt(
    folder: TrialFolder,
    config: TrainConfig,
    images: ImageSet,
    world: World,
    reporter: Reporter,
    starting: Callable[[], Starting | None],
    step_done: Callable[[], None],
) -> None:
    started = time.monotonic()
    step = _agreed(folder, world)
    if step == _FINISHED:
        return
    resume_from = None if step == _ANEW else _checkpoint_of(folder, config, step)
    machine = machine_of(world.device)
    if world.is_first:
        replace_json(folder.config, config.model_dump(mode="json"))
        earlier = folder.machines_before() if resume_from else []
        machines = [*(one for one in earlier if one != machine), machine]
        replace_json(folder.machines, machines)
        kept = JsonLines(folder.metrics, keep_up_to=step)
        reporter = Fanout(kept, reporter)
    with memory_explained("a training step", remedy_of_step(config)), lost_workers_named():
        result = train(
            config,
            images=images,
            world=world,
            reporter=reporter,
            checkpoints=folder.checkpoints,
            resume_from=resume_from,
            starting=None if resume_from else starting(),
            step_done=step_done,
        )
    if world.is_first:
        content = {
            "status": result.status,
            "reason": result.reason,
            "step": result.step,
            "steps": config.steps,
            "chain": result.chain,
            "resumed_at": max(step, 0),
            "wall_s": round(time.monotonic() - started, 3),
            **machine,
            "earlier_machines": machines[:-1],
            "workers": world.size,
            "data": images.digest,
            "code": dict(code_versions()),
        }
        replace_json(folder.result, content)
        folder.failure.unlink(missing_ok=True)
