"""Natural images in small: 2,464 crops of eleven photographs that two libraries ship.

| photograph | what it shows | by | licence |
| --- | --- | --- | --- |
| china | a temple, trees, a lake | danielbuechele, Flickr | CC BY 2.0 |
| flower | a dahlia before leaves | vultilion, Flickr | CC BY 2.0 |
| astronaut | Eileen Collins, a flag, a model shuttle | NASA | public domain |
| chelsea | a cat's face | Stefan van der Walt | CC0 |
| coffee | a cup on a table | Rachel Michetti, Pikolo Espresso Bar | CC0 |
| rocket | a Falcon 9 between masts at dusk | SpaceX | public domain |
| hubble_deep_field | galaxies | NASA, HubbleSite | public domain |
| camera (grey) | a man with a camera on a lawn | Lav Varshney | CC0 |
| brick (grey) | a brick wall | CC0Textures, Bricks25 | CC0 |
| grass (grey) | grass | linolafett, DeviantArt | CC0 |
| gravel (grey) | gravel | CC0Textures, Gravel04 | CC0 |

The first two are of scikit-learn (`datasets/images/README.txt`), all others of scikit-image, whose
wheel holds them (docstrings of `skimage.data`), so nothing is downloaded. Left out of what it ships
are pictures that come with no licence, or with no more than "no known restrictions" (moon, coins,
stained tissue, the stereo motorcycle, faces), and two that are a smear at this size (retina, a
blurred clock).

Each photograph is shrunk by a whole factor to a shorter side of 200 to 300 pixels, so that a crop
of 48×48 shows a part of a thing and not only its surface. Blocks are averaged in whole numbers: the
same bytes on every machine. Every photograph gives 224 crops, evenly spread, and the label says
which photograph. Held out are those that lie wholly in the right third; no training crop reaches
into it.

What this is not: a set of many scenes. Crops overlap their neighbours, a class is one photograph,
and the mean colour of a crop alone tells it in 74 % (20 neighbours; mean brightness 47 %, chance
9 %), the grey ones in 57 to 89 %, the others in 21 to 100 %. It has the edges and textures of
natural images, and colour in seven of them, which digits lack.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHRUNK_BY: Mapping[str, int] = {
    "china": 2,
    "flower": 2,
    "astronaut": 2,
    "chelsea": 1,
    "coffee": 2,
    "rocket": 2,
    "hubble_deep_field": 4,
    "camera": 2,
    "brick": 2,
    "grass": 2,
    "gravel": 2,
}
"""the photographs in order, each with the side of the blocks that become one pixel"""

CLASS_NAMES = tuple(SHRUNK_BY)

SIDE = 48
ROWS, TRAINING_COLUMNS, HELD_OUT_COLUMNS = 14, 12, 4
"""of crops in each photograph"""


@dataclass(frozen=True, kw_only=True)
class Crops:
    """n crops with their labels and what is held out."""

    pixels: NDArray[np.uint8]
    """[n, 48, 48, 3]"""
    labels: Tensor
    """int64 [n], indexes CLASS_NAMES"""
    corners: Tensor
    """int64 [n, 3]: photograph, top row and left column of a crop in it, in shrunk pixels"""
    held_out: Tensor
    """bool [n]"""

    @property
    def names(self) -> list[str]:
        """Of each crop, from its photograph and corner."""
        return ["/".join(map(str, corner)) for corner in self.corners.tolist()]


def photographs() -> Crops:
    """All crops, photograph by photograph, row by row."""
    pixels, labels, corners, held_out = [], [], [], []
    for number, (name, factor) in enumerate(SHRUNK_BY.items()):
        picture = _shrunk(_source(name), factor)
        height, width = picture.shape[:2]
        border = math.ceil(width * 2 / 3)
        columns = [
            *_spread(0, border - SIDE, TRAINING_COLUMNS),
            *_spread(border, width - SIDE, HELD_OUT_COLUMNS),
        ]
        for top in _spread(0, height - SIDE, ROWS):
            for left in columns:
                pixels.append(picture[top : top + SIDE, left : left + SIDE])
                labels.append(number)
                corners.append((number, top, left))
                held_out.append(left >= border)
    return Crops(
        pixels=np.stack(pixels),
        labels=torch.tensor(labels),
        corners=torch.tensor(corners),
        held_out=torch.tensor(held_out),
    )


def _source(name: str) -> NDArray[np.uint8]:
    """The photograph as it is shipped, [height, width, 3]; grey is the same in all three."""
    # Imported here, since whoever trains on other images has no use for them.
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        return load_sample_image(f"{name}.jpg")
    import skimage.data

    picture = getattr(skimage.data, name)()
    return picture if picture.ndim == 3 else np.stack([picture] * 3, axis=2)


def _shrunk(picture: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Means of blocks of side `factor`, halves rounded up; a rest at the edges is left out."""
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    blocks = picture[: height * factor, : width * factor].astype(np.int64)
    sums = blocks.reshape(height, factor, width, factor, 3).sum(axis=(1, 3))
    return ((2 * sums + factor**2) // (2 * factor**2)).astype(np.uint8)


def _spread(first: int, last: int, count: int) -> list[int]:
    return [first + (last - first) * place // (count - 1) for place in range(count)]
