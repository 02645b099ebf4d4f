"""One run on disk: its folder, the lock that fences attempts, and resuming where it stopped."""

import fcntl
import functools
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trainers
from trainers.config import TrainConfig
from trainers.data.image_set import ImageSet
from trainers.errors import CheckpointError
from trainers.runs.reporters import Fanout, JsonLines
from trainers.system.atomic import replace_json
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.loop import train
from trainers.training.reporter import Reporter


@functools.cache
def code_version() -> str:
    """Hexadecimal hash of the source of this package: other code, other runs."""
    digest = hashlib.sha256()
    home = Path(trainers.__file__).parent
    for path in sorted(home.rglob("*.py")):
        digest.update(path.relative_to(home).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def trial_key(config: TrainConfig, dataset_digest: str) -> str:
    """Name of a run by its content: configuration with seed, data and code; 16 hex digits.

    The path of the data does not count, its digest does: a moved folder is the same data.
    """
    content = config.model_dump(mode="json")
    del content["data"]["source"]
    canonical = json.dumps([content, dataset_digest, code_version()], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class TrialFolder:
    """`config.json`, `metrics.jsonl`, `result.json`, `failure.json` and `checkpoint/` of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.result = path / "result.json"
        self.failure = path / "failure.json"
        self.checkpoints = path / "checkpoint"

    def finished(self) -> dict[str, Any] | None:
        """The result, or None while there is none; a collapsed or diverged run is finished."""
        if not self.result.exists():
            return None
        result: dict[str, Any] = json.loads(self.result.read_text())
        return result

    def fail(self, message: str) -> None:
        """Record why the last attempt ended without a result."""
        replace_json(self.failure, {"message": message})

    def checkpoint_step(self) -> int | None:
        """The step of the checkpoint, or None when there is no readable one."""
        saved = self.checkpoints / checkpoint.FILE_NAME
        try:
            return checkpoint.saved_step(saved) if saved.exists() else None
        except CheckpointError:
            return None

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
    folder: TrialFolder, config: TrainConfig, *, images: ImageSet, world: World, reporter: Reporter
) -> None:
    """Train to the end, from the last checkpoint if there is one, and write the result.

    Every worker calls this. What is finished already is left alone.
    """
    if not world.is_first:
        world.wait()
        _attempt(folder, config, images, world, reporter)
        return
    with folder.fenced():
        world.wait()
        _attempt(folder, config, images, world, reporter)


def _attempt(
    folder: TrialFolder, config: TrainConfig, images: ImageSet, world: World, reporter: Reporter
) -> None:
    if folder.finished():
        return
    started = time.monotonic()
    step = folder.checkpoint_step()
    if world.is_first:
        replace_json(folder.config, config.model_dump(mode="json"))
        kept = JsonLines(folder.metrics, keep_up_to=-1 if step is None else step)
        reporter = Fanout(kept, reporter)
    result = train(
        config,
        images=images,
        world=world,
        reporter=reporter,
        checkpoints=folder.checkpoints,
        resume_from=None if step is None else folder.checkpoints / checkpoint.FILE_NAME,
    )
    if world.is_first:
        content = {
            "status": result.status,
            "reason": result.reason,
            "step": result.step,
            "steps": config.steps,
            "chain": result.chain,
            "resumed_at": step or 0,
            "wall_s": round(time.monotonic() - started, 3),
            "device": str(world.device),
            "workers": world.size,
        }
        replace_json(folder.result, content)
        folder.failure.unlink(missing_ok=True)
