"""Natural images in small: 3,008 crops of the two photographs that scikit-learn ships.

`china.jpg` (a temple, its roofs, trees and sky; by danielbuechele) and `flower.jpg` (a dahlia; by
vultilion), both CC BY 2.0, Flickr; scikit-learn has them under `datasets/images` with their
attributions. Crops are 48×48 pixels, every 12 pixels across and down. The label says which
photograph and which third of its height a crop begins in. Held out are the crops that lie wholly
in the rightmost quarter; no training crop reaches into it.

What this is not: a set of many scenes. Crops overlap their neighbours, and a class is a region of
one photograph. It has the colours, edges and textures of natural images, which digits lack.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image
from torch import Tensor

FILES = ("china.jpg", "flower.jpg")
SIDE, STEP, BANDS = 48, 12, 3
HELD_OUT = 0.25
"""share of the width of a photograph, on its right"""

CLASS_NAMES = tuple(
    f"{file.removesuffix('.jpg')} {band}" for file in FILES for band in ("top", "middle", "bottom")
)


@dataclass(frozen=True, kw_only=True)
class Crops:
    """n crops with their labels and what is held out."""

    pixels: NDArray[np.uint8]
    """[n, 48, 48, 3]"""
    labels: Tensor
    """int64 [n], indexes CLASS_NAMES"""
    corners: Tensor
    """int64 [n, 3]: photograph, top row and left column of a crop in it"""
    held_out: Tensor
    """bool [n]"""


def photographs() -> Crops:
    """All crops, photograph by photograph, row by row."""
    pixels, labels, corners, held_out = [], [], [], []
    for number, file in enumerate(FILES):
        picture = load_sample_image(file)
        height, width = picture.shape[:2]
        border = width - round(width * HELD_OUT)
        for top in range(0, height - SIDE + 1, STEP):
            band = min(top * BANDS // (height - SIDE + 1), BANDS - 1)
            for left in range(0, width - SIDE + 1, STEP):
                if left < border < left + SIDE:
                    continue  # it would be in both parts
                pixels.append(picture[top : top + SIDE, left : left + SIDE])
                labels.append(number * BANDS + band)
                corners.append((number, top, left))
                held_out.append(left >= border)
    return Crops(
        pixels=np.stack(pixels),
        labels=torch.tensor(labels),
        corners=torch.tensor(corners),
        held_out=torch.tensor(held_out),
    )
