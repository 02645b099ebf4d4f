"""Do our crops look like the original's? Mean gradient and colours of thousands of crops.

Six photographs that scikit-image and scikit-learn ship, at full size, go through both
augmentations, each with its own random boxes, flips and colours. Boxes differ by intent where one
would stick out of an image: the original draws it again, ours is cut to the image's side.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageFilter, ImageOps
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn import functional
from torchvision import transforms

from benchmarks.original import Original
from trainers.config import AugmentConfig
from trainers.config.recipe import recipe
from trainers.data.augment import IMAGENET, augment
from trainers.randomness.streams import Stream

VIEWS = 2
"""Crops of each kind that are made of an image at once."""

Pair = tuple[Tensor, Tensor]
"""Global and local crops, uint8 [VIEWS, 3, S, S] each."""


def photographs() -> list[np.ndarray]:
    """Each uint8 [H, W, 3]."""
    shipped = [load_sample_image(f"{name}.jpg") for name in ("china", "flower")]
    names = ("astronaut", "chelsea", "coffee", "rocket")
    return [*shipped, *(getattr(skimage.data, name)() for name in names)]


def our_crops(pictures: list[np.ndarray], squeezed: int) -> Iterator[Pair]:
    """Ours of one picture after the other, without end; squeezed to that side first unless 0."""
    published = recipe("dino_vit_small_16").augment
    config = AugmentConfig(**(published.model_dump() | {"local_crops": VIEWS}))
    images = [torch.from_numpy(picture.copy()).permute(2, 0, 1) for picture in pictures]
    if squeezed:
        side = (squeezed, squeezed)
        images = [
            functional.interpolate(image[None], side, mode="bilinear", antialias=True)[0]
            for image in images
        ]
    aspects = torch.tensor([picture.shape[1] / picture.shape[0] for picture in pictures])
    names, epoch = torch.arange(len(images)), 0
    while True:
        views = augment(
            torch.stack(images) if squeezed else images,
            aspects,
            names,
            torch.full_like(names, epoch),
            config,
            Stream(0, "augmentation"),
            16,
        )
        parts = (views.global_crops, views.local_crops)
        whole, part = (crops.unflatten(0, (VIEWS, -1)).transpose(0, 1) for crops in parts)
        yield from zip(whole, part, strict=True)
        epoch += 1


def original_crops(
    pictures: list[np.ndarray], transform: Callable[[Any], list[Tensor]]
) -> Iterator[Pair]:
    """The same of the original, whose augmentation ends with normalised floats."""
    mean, deviation = torch.tensor(IMAGENET)[..., None, None]
    while True:
        for picture in pictures:
            crops = [one * deviation + mean for one in transform(Image.fromarray(picture))]
            levels = [crop.mul(255).round().to(torch.uint8) for crop in crops]
            yield torch.stack(levels[:VIEWS]), torch.stack(levels[VIEWS:])


def transform_of(path: str | None) -> Callable[[Any], list[Tensor]]:
    """The original's augmentation from its folder, or without one the same of torchvision."""
    random.seed(0)
    torch.manual_seed(0)
    if path is None:
        return _written_out
    made = Original(path, "cpu").main.DataAugmentationDINO((0.4, 1.0), (0.05, 0.4), VIEWS)
    return made  # type: ignore[no-any-return]


def _written_out(picture: Any) -> list[Tensor]:
    def view(size: int, scale: tuple[float, float], blur: float, solarize: float) -> Tensor:
        cut = transforms.RandomResizedCrop(
            size, scale, interpolation=transforms.InterpolationMode.BICUBIC
        )
        jitter = transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8)
        steps = [cut, transforms.RandomHorizontalFlip(), jitter, transforms.RandomGrayscale(0.2)]
        crop = transforms.Compose(steps)(picture)
        if random.random() < blur:
            crop = crop.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
        if random.random() < solarize:
            crop = ImageOps.solarize(crop)
        found: Tensor = transforms.Normalize(*IMAGENET)(transforms.functional.to_tensor(crop))
        return found

    whole, part = (0.4, 1.0), (0.05, 0.4)
    views = [view(224, whole, 1.0, 0.0), view(224, whole, 0.1, 0.2)]
    return [*views, *(view(96, part, 0.5, 0.0) for _ in range(VIEWS))]


def statistics(crops: Tensor) -> dict[str, Tensor]:
    """Of each crop [n, 3, S, S], by name, float64 [n]."""
    values = crops.to(torch.float64)
    steps = [values.diff(dim=axis).abs().mean((1, 2, 3)) for axis in (2, 3)]
    found = {"mean gradient": steps[0] + steps[1]}
    for channel, name in enumerate(("red", "green", "blue")):
        found[f"mean {name}"] = values[:, channel].mean((1, 2))
        found[f"deviation {name}"] = values[:, channel].flatten(1).std(1)
    found["saturation"] = (values.amax(1) - values.amin(1)).mean((1, 2))
    return found


def gather(crops: Iterator[Pair], count: int) -> list[dict[str, Tensor]]:
    """Statistics of `count` global and `count` local crops."""
    kinds: list[list[dict[str, Tensor]]] = [[], []]
    for _ in range(-(-count // VIEWS)):
        for kind, views in zip(kinds, next(crops), strict=True):
            kind.append(statistics(views))
    return [{name: torch.cat([one[name] for one in kind]) for name in kind[0]} for kind in kinds]


def compare(path: str | None, count: int) -> str:
    """A table of ours over the original's: means, and three quantiles, of each statistic."""
    pictures = photographs()
    theirs = gather(original_crops(pictures, transform_of(path)), count)
    ours = gather(our_crops(pictures, 0), count)
    squeezed = gather(our_crops(pictures, 256), count)
    name = "torchvision's transforms" if path is None else "the original's"
    lines = [
        f"{count} global and {count} local crops of {len(pictures)} photographs, over {name}",
        f"{'':24}{'original':>9}{'mean':>8} ± {'error':<6}{'10 %':>7}{'50 %':>7}{'90 %':>7}"
        f"{'squeezed to 256':>18}",
    ]
    share = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    for kind, own, other, small in zip(("global", "local"), ours, theirs, squeezed, strict=True):
        for statistic, values in other.items():
            ratio: Tensor = own[statistic].mean() / values.mean()
            spread = [(one.std() / one.mean()) ** 2 / len(one) for one in (own[statistic], values)]
            parts = own[statistic].quantile(share) / values.quantile(share)  # 0 / 0 of grey ones
            lines.append(
                f"{kind + ' ' + statistic:24}{values.mean():9.2f}{ratio:8.3f} ± "
                f"{ratio * torch.stack(spread).sum().sqrt():<6.3f}"
                f"{''.join(f'{part:7.3f}' for part in parts.tolist())}"
                f"{small[statistic].mean() / values.mean():18.3f}"
            )
    return "\n".join(lines)
