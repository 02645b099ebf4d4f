"""Folders of pictures that a benchmark makes for itself."""

from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional


def photographs(folder: Path, count: int, *, width: int = 500, height: int = 375) -> None:
    """JPEGs of quality 90 with detail at several scales, like photographs, in two sub-folders."""
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
        Image.fromarray(pixels).save(place / f"{number:05d}.jpg", quality=90)


def digits(folder: Path, side: int) -> None:
    """The 1,797 digits that scikit-learn ships as PNGs of that side, a sub-folder a digit."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for number, (levels, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((levels * 255 / 16).round().astype("uint8"))
        grey.resize((side, side), Image.Resampling.BILINEAR).save(place / f"{number:04d}.png")
