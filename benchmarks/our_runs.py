"""Runs of ours, step by step and by the loop itself; made as `ours` makes them."""

import contextlib
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.ours import (
    ORIGINALS,
    STEPS,
    Reader,
    checked,
    configuration,
    decode_every_time,
    world_on,
)
from benchmarks.setting import Setting
from trainers.config import TrainConfig
from trainers.system.world import make_reproducible
from trainers.training import checkpoint, pace
from trainers.training.loop import train
from trainers.training.state import TrainState
from trainers.training.step import Batch, Update, update


class Run:
    """A run step by step, on images of a folder, without evaluation."""

    def __init__(self, config: TrainConfig, device: str, cache: Path) -> None:
        self.config, self.world = config, world_on(device)
        self.reader = Reader(config, cache, self.world)
        self.state = TrainState.fresh(config, self.world)

    def batch(self) -> Batch:
        """The crops of the next step."""
        return self.reader.batch(*self.reader.pixels(self.state.step))

    def advance(self, steps: int) -> Update:
        """So many steps; returns what the last one did."""
        for _ in range(steps):
            batch = self.batch()
            done = self.see(batch)
            self.state.extend_chain(batch.identifiers, done.digests)
        return done

    def see(self, batch: Batch) -> Update:
        """One update from these crops, which the chain leaves out."""
        done = update(self.state, batch, self.config, self.world)
        checked(done)
        return done

    def save(self, folder: Path) -> Path:
        """A checkpoint."""
        saved = checkpoint.save(self.state, self.config, folder, self.world)
        assert saved
        return saved

    def load(self, saved: Path) -> None:
        """Go on from a checkpoint."""
        self.state = checkpoint.load(saved, self.config, self.world)

    def digest(self) -> str:
        """A hash of all weights, moments and centers."""
        whole = hashlib.blake2b(digest_size=16)
        moments = self.state.optimizer.state_dict()["state"]
        named = {
            **{f"student.{name}": value for name, value in self.state.student.state_dict().items()},
            **{f"teacher.{name}": value for name, value in self.state.teacher.state_dict().items()},
            **{f"{place}.{name}": one[name] for place, one in moments.items() for name in one},
            **self.state.centers,
        }
        for name in sorted(named):
            content = named[name].detach().cpu().contiguous().flatten().view(torch.uint8)
            whole.update(name.encode() + content.numpy().tobytes())
        return whole.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Flow:
    """How fast images came from disk into weights."""

    rate: float
    """images/s"""
    pure: float
    """images/s of updates on crops that are already there, in the same process"""
    metrics: dict[str, float]
    """what the loop reports of time and memory, by name, at its last record"""


class _EnoughError(Exception):
    """Ends a run."""


class _Stopwatch:
    """A reporter that ends a run after so many seconds past the first record."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.records: list[tuple[int, float]] = []
        """steps and times"""
        self.metrics: dict[str, float] = {}

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        """See trainers.training.reporter.Reporter."""
        if checkpoint or "loss/total" not in metrics:
            return
        self.metrics = dict(metrics)
        self.records.append((step, time.perf_counter()))
        if self.records[-1][1] - self.records[0][1] > self.seconds:
            raise _EnoughError


def disk_to_weights(
    setting: Setting,
    device: str,
    folder: str,
    scratch: Path,
    change: dict[str, Any],
    *,
    seconds: float,
    threads: int,
) -> Flow:
    """Trains by the loop itself, images decoded each time, for about `seconds`."""
    make_reproducible(threads)
    decode_every_time()
    config = configuration(
        setting,
        {"data.source": folder, "log_every": 5}
        | {"evaluation.every": STEPS, "checkpoint_every": STEPS}
        | ORIGINALS
        | change,
    )
    run = Run(config, device, scratch / "cache")
    start = run.save(scratch / "start")  # resumed runs begin without an evaluation
    batch = run.batch()
    pure = _seconds_a_step(run, batch, seconds / 2)
    watch = _Stopwatch(seconds)
    with contextlib.suppress(_EnoughError):
        train(
            config,
            images=run.reader.images,
            world=run.world,
            reporter=watch,
            checkpoints=scratch / "checkpoints",
            resume_from=start,
        )
    (first, began), (last, ended) = watch.records[0], watch.records[-1]
    return Flow(
        rate=(last - first) * setting.batch / (ended - began),
        pure=setting.batch / pure,
        metrics={
            name: watch.metrics[name]
            for name in pace.DESCRIPTIONS | pace.ON_KNOWN_CARDS
            if name in watch.metrics
        },
    )


def _seconds_a_step(run: Run, batch: Batch, seconds: float) -> float:
    for _ in range(3):
        run.see(batch)
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        run.see(batch)
        steps += 1
    if run.world.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps
