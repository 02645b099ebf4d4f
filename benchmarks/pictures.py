"""Folders of pictures that a benchmark makes for itself."""

import shutil
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional


def photographs(
    folder: Path, count: int, *, width: int = 500, height: int = 375, copies: int = 1
) -> None:
    """JPEGs of quality 90 with detail at several scales, like photographs, in two sub-folders.

    Of each there are `copies` under names of their own, which are sooner made and no sooner read.
    """
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        picture = torch.zeros(1, 3, height, width)
        for scale, weight in ((8, 0.5), (24, 0.25), (80, 0.15), (200, 0.1)):
            size = (max(1, height * scale // width), scale)
            coarse = torch.rand(1, 3, *size, generator=generator)
            picture += weight * functional.interpolate(coarse, (height, width), mode="bicubic")
        pixels = picture[0].clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy()
        place = folder / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        first = place / f"{number:05d}.jpg"
        Image.fromarray(pixels).save(first, quality=90)
        for copy in range(1, copies):
            shutil.copy(first, first.with_stem(f"{first.stem}-{copy}"))


def digits(folder: Path, side: int) -> None:
    """The 1,797 digits that scikit-learn ships as PNGs of that side, a sub-folder a digit."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for number, (levels, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((levels * 255 / 16).round().astype("uint8"))
        grey.resize((side, side), Image.Resampling.BILINEAR).save(place / f"{number:04d}.png")
