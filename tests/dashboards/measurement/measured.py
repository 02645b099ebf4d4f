"""A small ViT without training, and what is measured of it."""

import torch

from trainers.config import TrainConfig, override
from trainers.data.augment import IMAGENET
from trainers.data.image_set import open_images
from trainers.globality.instruments import Settings
from trainers.globality.measurable import Measurable
from trainers.globality.measurement import Measurement, Plan, choose, measure
from trainers.model.vit import VisionTransformer, initialise

FACTS = {"model": {"name": "<small>"}, "images": {"grid": [4, 4]}}


def small_measurement(*, both: bool, name: str = "<small>") -> tuple[Measurable, Plan, Measurement]:
    """A model, its plan and what was measured; with [CLS] and registers if `both`, or neither."""
    change = {"model.width": 16, "model.heads": 2, "model.depth": 2, "model.cls": both,
              "model.registers": 2 * both, "loss.cls": float(both),
              "loss.patches": float(not both)}  # fmt: skip
    config = override(TrainConfig(), change)
    network = VisionTransformer(config.model, 16).requires_grad_(False)
    initialise(network, 0, 0.3)
    model = Measurable(
        network=network,
        name=name,
        weights="random, seed 0",
        is_random=True,
        depth=2,
        has_cls=both,
        registers=2 * both,
        patch_size=4,
        image_size=16,
        mean=IMAGENET[0],
        deviation=IMAGENET[1],
        normalisation="ImageNet's",
    )
    images = open_images(config.data, None)
    places, part = choose(images, 10)
    settings = Settings(memory=4, patch_queries=64, causal_images=2, replacement="mean")
    plan = Plan(
        places=places, part=part, size=16, grid=(4, 4), primary=(1,), batch_size=4,
        settings=settings,
    )  # fmt: skip
    return model, plan, measure(model, images, plan, torch.device("cpu"))
