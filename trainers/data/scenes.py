"""Pictures made by rule: what they show lies in far parts alone, or in one near part alone.

A scene has 4 × 4 tiles of 12 pixels with clutter: a shape in a light colour on a dark one. Over
them lie two objects, at opposite borders, each a T or a cup, upright or upside down; and anywhere
else a texture. They are as large as a tile, and all colours are drawn. There are two data sets:

- `scenes_far`: how the two objects differ (not at all, upside down, in kind, in both). Objects are
  24 pixels apart or more.
- `scenes_near`: which of four textures there is.

Scenes come in groups of 16 that share all else. In a group of `scenes_far` each of the two objects
takes each of four forms with each of the other's, and the texture is one; in one of `scenes_near`
the objects differ in each of four ways, with each texture. So in every group, exactly:

- whatever holds no pixel of one of the objects, any window of 25 pixels a side for example, is
  there in each class of `scenes_far` equally often: who sees no more is right in a quarter of them;
- what holds no pixel of the texture is there in each class of `scenes_near` equally often, and the
  square of the texture alone tells the class;
- all shapes cover half of their square, so that all 16 images have the same pixels in another
  order: no colour and no histogram tells either class (but that squeezing blends edges).

A scene mirrored left to right is of the same class. Groups are wholly held out or wholly trained
on. Everything follows from Philox words and whole numbers: the same bytes on every machine.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.randomness.streams import Stream

Relation = Literal["far", "near"]

CLASSES: Mapping[Relation, tuple[str, ...]] = {
    "far": ("same", "upside_down", "other_kind", "other_kind_upside_down"),
    "near": ("rows", "columns", "squares", "blocks"),
}

GROUPS, HELD_OUT_GROUPS = 200, 40
"""groups of 16 scenes; the last ones are held out"""

TILES, DOTS, BLOCK = 4, 4, 3
"""tiles a side of a scene, dots a side of a shape, pixels a side of a dot"""

SIDE = TILES * DOTS * BLOCK

# Of forms 0 to 3, one bit is the way up, and the other the kind.
_OBJECTS = (
    "#### .##. .##. ....",
    ".... .##. .##. ####",
    "#..# #..# #### ....",
    ".... #### #..# #..#",
)
_TEXTURES = (
    "#### .... #### ....",
    "#.#. #.#. #.#. #.#.",
    "#.#. .#.# #.#. .#.#",
    "##.. ##.. ..## ..##",
)
_CLUTTER = (
    ".##. #### .##. ....",
    ".##. #..# #..# .##.",
    "#... ##.. ##.. ###.",
    "...# ..## ..## .###",
    "###. #... #... ###.",
    ".### ...# ...# .###",
)


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """n scenes of 48 pixels a side with their labels, groups one after the other."""

    pixels: NDArray[np.uint8]
    """[n, 48, 48, 3]"""
    labels: Tensor
    """int64 [n], indexes CLASSES"""
    held_out: Tensor
    """bool [n]"""
    squares: NDArray[np.int64]
    """[n, 3, 2], first row and column, pixels, of the two objects and of the texture"""

    @property
    def names(self) -> list[str]:
        """Of each scene, its place."""
        return [str(place) for place in range(len(self.labels))]


def scenes(relation: Relation) -> Scenes:
    """All scenes with the labels of one relation."""
    one, other, texture = _forms(relation)
    dots, places = _drawn(one, other, texture)
    labels = one ^ other if relation == "far" else texture
    return Scenes(
        pixels=dots.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2),
        labels=torch.from_numpy(labels.reshape(-1)),
        held_out=(torch.arange(GROUPS) >= GROUPS - HELD_OUT_GROUPS).repeat_interleave(16),
        squares=BLOCK * places.repeat(16, axis=0),
    )


def _forms(relation: Relation) -> tuple[NDArray[np.int64], ...]:
    """Forms of the two objects, and textures, int64 [GROUPS, 16] each."""
    high, low = np.divmod(np.arange(16), 4)
    groups = np.arange(GROUPS)[:, None]
    same = groups % 4
    found = {"far": (high, low, same), "near": (same, same ^ high, low)}[relation]
    return tuple(np.broadcast_to(one, (GROUPS, 16)) for one in found)


def _drawn(*forms: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Scenes with a pixel for each dot, uint8 [GROUPS · 16, 16, 16, 3].

    `forms` [GROUPS, 16] are those of the two objects and of the texture. Also returned: where these
    lie, first row and column of each in dots, [GROUPS, 3, 2].
    """
    stream, groups = Stream(0, "scenes"), torch.arange(GROUPS)
    kinds, grounds, inks, _ = (
        word.numpy() for word in stream.bits(groups[:, None], torch.arange(TILES**2 + 3))
    )
    colours = np.stack([_colour(grounds, 48), _colour(inks, 144)], axis=-2)
    shown = _dots(_CLUTTER)[kinds[:, 3:] % len(_CLUTTER)]
    every, tile = (np.arange(count)[:, None, None, None] for count in (GROUPS, TILES**2))
    tiles = colours[every, 3 + tile[:, 0], shown].reshape(-1, TILES, TILES, DOTS, DOTS, 3)
    clutter = tiles.swapaxes(2, 3).reshape(-1, 1, TILES * DOTS, TILES * DOTS, 3)
    scene = clutter.repeat(16, axis=1)
    draws = stream.bits(groups, torch.full_like(groups, TILES**2 + 3))
    places = [_places(*words) for words in torch.stack(draws, dim=1).tolist()]
    for group, of_group in enumerate(places):
        for number, (row, column) in enumerate(of_group):
            shapes = _dots(_TEXTURES if number == 2 else _OBJECTS)[forms[number][group]]
            area = scene[group, :, row : row + DOTS, column : column + DOTS]
            area[:] = colours[group, number][shapes]
    return scene.reshape(-1, *scene.shape[2:]), np.array(places)


def _places(across: int, first: int, second: int, third: int) -> list[tuple[int, int]]:
    """First row and column, in dots, of the two objects and of the texture; from random words."""
    last = (TILES - 1) * DOTS
    ends = [(0, first % (last + 1)), (last, second % (last + 1))]
    objects = [(column, row) if across % 2 else (row, column) for row, column in ends]
    free = [
        place
        for place in itertools.product(range(last + 1), range(last + 1))
        if all(max(abs(place[0] - row), abs(place[1] - column)) >= DOTS for row, column in objects)
    ]
    return [*objects, free[third % len(free)]]


def _dots(drawings: tuple[str, ...]) -> NDArray[np.int64]:
    """Shapes as 0 and 1, int64 [n, 4, 4]."""
    return np.array([[[dot == "#" for dot in row] for row in one.split()] for one in drawings], int)


def _colour(words: NDArray[np.int64], darkest: int) -> NDArray[np.uint8]:
    """Colours of three of the 64 levels from `darkest`, uint8 [..., 3]."""
    levels = [darkest + (words >> shift) % 64 for shift in (0, 8, 16)]
    return np.stack(levels, axis=-1).astype(np.uint8)
