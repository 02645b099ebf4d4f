"""Our side of every contest; the only file here that knows how our trainer is called."""

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.contest import Advance
from benchmarks.setting import Setting
from trainers.config import TrainConfig, override
from trainers.config.compute import ComputeConfig
from trainers.data import image_set
from trainers.data.augment import Views, augment, normalize
from trainers.data.cut import Images
from trainers.data.image_set import ImageSet, open_images
from trainers.globality.statistics import AttentionStatistics
from trainers.globality.tokens import Tokens, stratified
from trainers.randomness.sample_order import batch as sample_batch
from trainers.randomness.streams import Stream
from trainers.system.allocator import keep_freed_memory
from trainers.system.world import World, make_reproducible
from trainers.training import checkpoint, pace
from trainers.training.loop import train
from trainers.training.state import TrainState
from trainers.training.step import Batch, Update, update

STEPS = 100_000
"""Steps of a benchmark's schedules: more than any benchmark takes."""

_SPEED = {
    "compute.compile": True,
    "compute.packed": True,
    "compute.cuda_graphs": True,
}


def speed_knobs() -> dict[str, Any]:
    """Knobs that compute the same, faster, as they are on, in this version of ours."""
    known = ComputeConfig.model_fields
    return {name: on for name, on in _SPEED.items() if name.split(".")[1] in known}


ORIGINALS = {"data.image_size": 0}
"""Crops are cut from images as decoded, as published, and not from squares."""


def configuration(setting: Setting, change: dict[str, Any] | None = None) -> TrainConfig:
    """The configuration of a setting, photometric augmentation as in DINO, with `change` on top."""
    return override(
        TrainConfig(),
        {
            "steps": STEPS,
            "batch_size": setting.batch,
            "augment.global_crops": setting.global_crops,
            "augment.local_crops": setting.local_crops,
            "augment.global_size": setting.global_size,
            "augment.local_size": setting.local_size,
            "augment.global_scale": [0.4, 1.0],
            "augment.local_scale": [0.05, 0.4],
            "data.image_size": max(setting.global_size * 8 // 7 // setting.patch, 1)
            * setting.patch,
            "model.patch_size": setting.patch,
            "model.width": setting.width,
            "model.depth": setting.depth,
            "model.heads": setting.heads,
            "model.mlp_ratio": float(setting.mlp_ratio),
            "head.hidden": setting.hidden,
            "head.bottleneck": setting.bottleneck,
            "head.prototypes": setting.prototypes,
            "optimizer.freeze_last_layer_steps": 0,
            "compute.precision": {"float32": "fp32", "bfloat16": "bf16"}[setting.precision],
        }
        | (change or {}),
    )


def world_on(device: str) -> World:
    """One worker on that device."""
    return World(rank=0, size=1, device=torch.device(device))


def batch_of(whole: torch.Tensor, part: torch.Tensor, images: int, device: str) -> Batch:
    """uint8 crops as a step receives them."""
    numbers = torch.arange(images)
    views = Views(global_crops=whole, local_crops=part, digest=numbers)
    return Batch(
        views=views.on(torch.device(device)),
        identifiers=numbers,
        epochs=torch.zeros_like(numbers),
        labels=None,
    )


def _checked(done: Update) -> None:
    assert not done.failure, done.failure


def make_step(
    setting: Setting, device: str, change: dict[str, Any], reproducible: int = 0
) -> Advance:
    """A contender that updates on the same crops again and again.

    With `reproducible` threads it is set up as a run is, where equal runs give equal bits.
    """
    keep_freed_memory()
    if reproducible:
        make_reproducible(reproducible)
    config = configuration(setting, change)
    world = world_on(device)
    state = TrainState.fresh(config, world)
    batch = batch_of(*setting.crops(), setting.batch, device)

    def advance(steps: int) -> float:
        for _ in range(steps):
            _checked(update(state, batch, config, world))
        return float(steps * setting.batch)

    return advance


def decode_every_time() -> None:
    """Have images decoded whenever they are read, as those of a set too large to keep."""
    image_set.KEPT_BYTES = 0


class Reader:
    """Images of a folder, or digits, to crops on the device, batch after batch."""

    def __init__(self, config: TrainConfig, cache: Path | None, world: World) -> None:
        self.config, self.world = config, world
        self.images: ImageSet = open_images(config.data, cache)
        self.stream = Stream(config.seed, "augmentation")

    def pixels(self, step: int) -> tuple[Images, torch.Tensor, torch.Tensor]:
        """The step's images, with their places and epochs."""
        train = self.images.train
        places, epochs = sample_batch(self.config.seed, step, self.config.batch_size, len(train))
        pixels = self.images.pixels(train[places], self.world.device)
        return pixels, train[places], epochs

    def moved(self, pixels: Images) -> Images:
        """The same images where this one's crops are cut."""
        there = self.world.device
        if isinstance(pixels, list):
            return [image.to(there) for image in pixels]
        return pixels.to(there)

    def batch(self, pixels: Images, places: torch.Tensor, epochs: torch.Tensor) -> Batch:
        """All crops of a batch, and what names its images."""
        identifiers = self.images.identifiers[places]
        views = augment(
            pixels,
            self.images.aspect(places),
            identifiers,
            epochs,
            self.config.augment,
            self.stream,
            self.config.model.patch_size,
        ).on(self.world.device)
        return Batch(views=views, identifiers=identifiers, epochs=epochs, labels=None)


def make_pipeline(
    setting: Setting, device: str, folder: str, cache: str, side: int, part: str
) -> Advance:
    """Images from disk to normalised crops on the device; `part` of it: all, decode, augment."""
    keep_freed_memory()
    config = configuration(setting, {"data.source": folder, "data.image_size": side})
    decode_every_time()
    reader = Reader(config, Path(cache), world_on(device))
    done = 0
    kept = reader.pixels(0)

    def advance(steps: int) -> float:
        nonlocal done
        for _ in range(steps):
            batch = kept if part == "augment" else reader.pixels(done)
            if part != "decode":
                views = reader.batch(*batch).views
                normalize(views.global_crops)
                normalize(views.local_crops)
            done += 1
        return float(steps * setting.batch)

    return advance


def make_training(
    setting: Setting, device: str, folder: str, cache: str, side: int, change: dict[str, Any]
) -> Advance:
    """Images from disk to updated weights."""
    keep_freed_memory()
    source = {"data.source": folder, "data.image_size": side}
    config = configuration(setting, source | change)
    if setting.global_size > 32:
        decode_every_time()
    world = world_on(device)
    reader = Reader(config, Path(cache), world)
    state = TrainState.fresh(config, world)

    def advance(steps: int) -> float:
        for _ in range(steps):
            batch = reader.batch(*reader.pixels(state.step))
            _checked(update(state, batch, config, world))
        return float(steps * setting.batch)

    return advance


def make_measure(setting: Setting, batch: int, memory: float, device: str) -> Advance:
    """Attention statistics of our own model, of batches of random pixels, in float32."""
    keep_freed_memory()
    config = configuration(setting)
    network = TrainState.fresh(config, world_on(device)).teacher.eval()
    grid = network.backbone.grid
    tokens = Tokens(
        grid=grid,
        has_cls=True,
        registers=0,
        patch_queries=stratified(grid, 64, torch.device(device)),
        fixed_patch=None,
    )
    statistics = AttentionStatistics(tokens, memory=memory)
    whole, _ = dataclasses.replace(setting, batch=batch, global_crops=1).crops()
    images = normalize(whole.to(device))

    def advance(steps: int) -> float:
        with torch.inference_mode():
            for _ in range(steps):
                network(images, observe=statistics)
        return float(steps * batch)

    return advance


def strictly_reproducible(threads: int) -> None:
    """Set this process up as a run is; what has no deterministic form raises."""
    make_reproducible(threads)
    torch.use_deterministic_algorithms(True)


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
        _checked(done)
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
