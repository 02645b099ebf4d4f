"""What needs no learning: k-NN of held-out images on their pixels, mean colour and colours.

Functions of a data set and of how a run evaluates it: the same split, crops, neighbours and
temperature as those of `knn/cls_top1`. A model whose accuracy is not above them has not been shown
to have learned anything.
"""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from trainers.config import TrainConfig
from trainers.data.augment import evaluation_crops, normalize
from trainers.data.image_set import ImageSet
from trainers.evaluation.knn import accuracy, knn_right
from trainers.evaluation.rows import Rows
from trainers.system.world import World

PIXELS_SIDE = 32
"""Larger crops are averaged down to so many pixels a side."""

LEVELS = 8
"""Of each colour, in a histogram."""


def _pixels(crops: Tensor) -> Tensor:
    side = min(crops.shape[-1], PIXELS_SIDE)
    return functional.adaptive_avg_pool2d(normalize(crops), side).flatten(1)


def _mean_colour(crops: Tensor) -> Tensor:
    """Cosines forget lengths, so a 1 beside it keeps how bright it is."""
    mean = crops.float().mean((2, 3)) / 255
    return torch.cat([mean, torch.ones_like(mean[:, :1])], dim=1)


def _histogram(crops: Tensor) -> Tensor:
    """Roots of the shares of LEVELS³ colours, whose cosine is the Bhattacharyya coefficient."""
    levels = crops.long() * LEVELS // 256
    colours = ((levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]).flatten(1)
    counts = torch.zeros(len(crops), LEVELS**3, device=crops.device)
    counts.scatter_add_(1, colours, torch.ones_like(colours, dtype=torch.float32))
    return (counts / colours.shape[1]).sqrt()


FEATURES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "pixels": _pixels,
    "mean_colour": _mean_colour,
    "histogram": _histogram,
}
"""Features float32 [B, D] of crops uint8 [B, 3, S, S], by name."""


@torch.no_grad()
def reference_accuracies(
    images: ImageSet, config: TrainConfig, names: Collection[str]
) -> dict[str, float]:
    """k-NN accuracy of held-out images, in [0, 1], by each of these FEATURES; on the CPU.

    The images must have labels.
    """
    assert images.labels is not None
    device = torch.device("cpu")
    knobs, size = config.evaluation, config.augment.global_size
    parts: list[dict[str, Rows]] = []
    for places in (images.train, images.test):
        rows: dict[str, Rows] = {}
        for batch in places.split(knobs.batch_size) if names else ():
            crops = evaluation_crops(
                images.pixels(batch, device), images.aspect(batch), size, device
            )
            for name in names:
                features = FEATURES[name](crops)
                rows.setdefault(name, Rows(features.shape[1], device)).add(features)
        parts.append(rows)
    bank, queries = parts
    return {
        name: accuracy(
            knn_right(
                bank[name],
                images.labels[images.train],
                torch.cat(list(queries[name])),
                images.labels[images.test],
                neighbours=knobs.knn_neighbours,
                temperature=knobs.knn_temperature,
                world=World.alone(device),
            )
        )
        for name in names
    }
