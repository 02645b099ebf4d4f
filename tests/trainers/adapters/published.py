"""Small ViTs under others' names, and runs that start from them."""

import timm
import torch

from trainers.adapters.starting import pinned
from trainers.config import override
from trainers.data.augment import IMAGENET
from trainers.system.world import World
from trainers.training.state import TrainState

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
SHAPE = {
    "img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 0
}  # fmt: skip
PIXELS = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def standardised(pixels, mean, deviation):
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]


IMAGES = standardised(PIXELS, *IMAGENET)


def timms(name="vit_tiny_patch16_224", **options):
    """A small model of timm's, its every parameter shaken."""
    model = timm.create_model(name, **{**SHAPE, **options}).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def start(config, weights, **change):
    """The state at step 0 of a run that starts from `weights`."""
    config, starting = pinned(override(config, {"model.weights": str(weights), **change}))
    return TrainState.fresh(config, ALONE, starting=starting), config, starting


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
