"""What `dinolab measure` decides from its options."""

import platform
from importlib import metadata
from typing import Any

import torch

from trainers.config import DataConfig
from trainers.data.image_set import ImageSet
from trainers.errors import InputError
from trainers.globality.causal import Replacement
from trainers.globality.instruments import Settings
from trainers.globality.measurable import Measurable
from trainers.globality.measurement import Plan, check_layers, choose
from trainers.system.storage import absolute_source

ROOM = 4 / 3
"""Side of the stored squares over that of the crops: those of 4:3 images lose no resolution."""

QUICK_IMAGES, QUICK_CAUSAL_IMAGES = 96, 3
"""What `measure` takes by default: within a minute for a ViT-Ti on two cores."""

THOROUGH_IMAGES, THOROUGH_CAUSAL_IMAGES = 256, 16
"""What it takes with --thorough."""

IMAGES_OF_MEAN = 16
"""Images, at least, whose mean stands in for a patch, however few its influence is measured on."""

PACKAGES = ("dinolab", "torch", "timm")


def use_threads(threads: int) -> None:
    """Compute on that many CPU threads."""
    torch.set_num_threads(threads)


def images_wanted(model: Measurable, data: str | None, size: int | None) -> DataConfig:
    """Which images, and how large they are to be kept. Raises InputError when nothing says which.

    A run of ours is measured on its own images as `dinolab eval` sees them.
    """
    own = model.trained_on
    if data is None and own is None:
        raise InputError(
            "--data is missing: a folder, what `dinolab ingest` made, or a name that "
            "`dinolab list datasets` has"
        )
    side = model.image_size if size is None else size
    model.grid(side)
    source = None if data is None else absolute_source(data)
    if own is not None and source in (None, own.source):
        # 0 is as large as the images are.
        larger = max(own.image_size, side) if own.image_size else 0
        return own.model_copy(update={"image_size": larger})
    return DataConfig(source=str(source), image_size=max(4, round(ROOM * side)))


def plan(
    model: Measurable,
    images: ImageSet,
    source: DataConfig,
    *,
    thorough: bool,
    limit: int | None,
    size: int | None,
    layers: str | None,
    batch_size: int,
    memory: float,
    patch_queries: int,
    causal_images: int | None,
    replacement: Replacement,
    seed: int,
) -> Plan:
    """The measurement that the options ask for. Raises InputError for layers that are not there."""
    if limit is None:
        limit = THOROUGH_IMAGES if thorough else QUICK_IMAGES
    if causal_images is None:
        causal_images = THOROUGH_CAUSAL_IMAGES if thorough else QUICK_CAUSAL_IMAGES
    primary = model.primary_layers()
    if layers is not None:
        try:
            asked = [int(part) for part in layers.split(",")]
        except ValueError:
            raise InputError(f"--layers {layers}: must be numbers such as 7,8") from None
        primary = check_layers(asked, model.depth)
    side = model.image_size if size is None else size
    own = model.trained_on is not None and model.trained_on.source == source.source
    places, part = choose(images, limit, trained_on_them=own)
    return Plan(
        places=places,
        part=part,
        size=side,
        grid=model.grid(side),
        primary=primary,
        batch_size=batch_size,
        settings=Settings(
            memory=memory,
            patch_queries=patch_queries,
            causal_images=min(causal_images, len(places)),
            replacement=replacement,
            images_of_mean=IMAGES_OF_MEAN,
            seed=seed,
        ),
    )


def facts(
    argument: str,
    model: Measurable,
    plan: Plan,
    source: DataConfig,
    images: ImageSet,
    device: torch.device,
) -> dict[str, Any]:
    """What was measured, how and with what, for `summary.json`."""
    return {
        "model": {
            "given": argument,
            "name": model.name,
            "weights": model.weights,
            "random_weights": model.is_random,
            "parameters": model.parameters,
            "blocks": model.depth,
            "cls": model.has_cls,
            "registers": model.registers,
            "patch_size": model.patch_size,
            "image_size": model.image_size,
        },
        "images": {
            "source": source.source,
            "digest": images.digest,
            "measured": len(plan.places),
            "part": plan.part,
            "size": plan.size,
            "grid": list(plan.grid),
            "mean": list(model.mean),
            "deviation": list(model.deviation),
            "normalisation": model.normalisation,
        },
        "settings": {
            "primary_layers": list(plan.primary),
            "final_block": model.depth,
            "causal_images": plan.settings.causal_images,
            "replacement": plan.settings.replacement,
            "patch_queries": plan.settings.patch_queries,
            "batch_size": plan.batch_size,
            "memory_mib": plan.settings.memory,
            "seed": plan.settings.seed,
            "device": device.type,
        },
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    packages = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
