"""Our side of every contest; with `our_runs` all here that knows how our trainer is called."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from benchmarks.contest import Advance
from benchmarks.setting import Setting
from trainers.config import TrainConfig, override
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
from trainers.training.state import TrainState
from trainers.training.step import Batch, Update, update

STEPS = 100_000
"""Steps of a benchmark's schedules: more than any benchmark takes."""

ORIGINALS = {"data.image_size": 0}
"""Crops are cut from images as decoded, as published, and not from squares."""

SPEED_KNOBS = {"compute.compile": True, "compute.packed": True}
"""Knobs that compute the same, faster, as they are on."""


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


def checked(done: Update) -> None:
    """Let no update that failed count."""
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
            checked(update(state, batch, config, world))
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
            checked(update(state, batch, config, world))
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
