"""Maps over small images: a map as a few colours, and over the image as an array.

A map is [rows, columns] and sums to 1; one that holds a NaN is none.
"""

import io

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

Map = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

MASS = 0.6
"""of a map inside its contour (Caron et al. 2021)"""

HEAT = "inferno"

LEAST_SPREAD = 0.5
"""Between the darkest and the lightest, over the weight of uniform attention."""

_LEVELS = 16
"""Colours of a map in a page."""

_LEAST, _MOST = 0.35, 0.8
"""How much of the image the colours hide, where the map is least and where it is most."""

PAPER = 255
"""of what holds neither image nor map"""


def is_map(values: Map) -> bool:
    """Whether it is one."""
    return bool(np.isfinite(values).all())


def shades(values: Map) -> npt.NDArray[np.float64]:
    """How light each patch is, from 0 to 1; a map that is uniform but for noise stays dark."""
    low, high = float(values.min()), float(np.quantile(values, 0.995))
    span = max(high - low, LEAST_SPREAD / values.size)
    return np.clip((values.astype(np.float64) - low) / span, 0, 1)


def holding(values: Map, mass: float = MASS) -> int:
    """How many patches hold `mass` of a map, if they are the fewest that do."""
    gathered = np.cumsum(-np.sort(-values.ravel()))
    return int(np.searchsorted(gathered, mass * gathered[-1])) + 1


def grey(pixels: Pixels) -> Pixels:
    """The image [S, S, 3] as what is under a map: grey, and no darker than a quarter."""
    return np.rint(0.25 * 255 + 0.75 * pixels.mean(-1)).astype(np.uint8)


def overlay(values: Map) -> bytes:
    """The map as a PNG of a pixel for each patch, which a page lays over the grey image."""
    image = Image.fromarray(_levels(values))
    image.putpalette(_COLOURS.tobytes())
    return _file(image, "PNG", transparency=_HIDDEN.tobytes(), optimize=True, bits=4)


def colours() -> list[str]:
    """Those of maps over a middle grey, from the least to the most, as CSS writes them."""
    every = zip(_COLOURS.tolist(), _HIDDEN.tolist(), strict=True)
    return [f"rgba({red}, {green}, {blue}, {a / 255:.2f})" for (red, green, blue), a in every][::3]


def picture(pixels: Pixels) -> bytes:
    """An image [S, S, 3], or a grey one [S, S], as a WebP without loss."""
    return _file(Image.fromarray(pixels), "WEBP", lossless=True, quality=100, method=4)


def tile(pixels: Pixels, values: Map, side: int) -> Pixels:
    """The map over the grey image, [side, side, 3]; a cross where there is no map."""
    if not is_map(values):
        return nothing(side)
    base = sized(grey(pixels), side)[..., None].astype(float)
    rows = np.arange(side) * values.shape[0] // side
    columns = np.arange(side) * values.shape[1] // side
    level = _levels(values)[rows][:, columns]
    hidden = _HIDDEN[level][..., None] / 255
    return np.rint(base * (1 - hidden) + _COLOURS[level] * hidden).astype(np.uint8)


def sized(pixels: Pixels, side: int) -> Pixels:
    """The image [S, S, 3] or [S, S] with `side` pixels a side."""
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def nothing(side: int) -> Pixels:
    """What stands where there is no map: a cross, [side, side, 3]."""
    found = np.full((side, side, 3), PAPER - 16, np.uint8)
    diagonal = np.arange(side)
    found[diagonal, diagonal] = found[diagonal, diagonal[::-1]] = 160
    return found


def sheet(rows: list[list[Pixels]], gap: int) -> Pixels:
    """Tiles of one size beside and below each other, with paper between them."""
    padding = ((0, gap), (0, gap), (0, 0))
    padded = [[np.pad(one, padding, constant_values=PAPER) for one in row] for row in rows]
    whole = np.concatenate([np.concatenate(row, axis=1) for row in padded])
    return whole[: whole.shape[0] - gap, : whole.shape[1] - gap]


def _levels(values: Map) -> npt.NDArray[np.uint8]:
    return np.rint(shades(values) * (_LEVELS - 1)).astype(np.uint8)


def _file(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


_STEPS = np.linspace(0, 1, _LEVELS)
_COLOURS = np.rint(255 * colormaps[HEAT](_STEPS)[:, :3]).astype(np.uint8)
_HIDDEN = np.rint(255 * (_LEAST + (_MOST - _LEAST) * _STEPS)).astype(np.uint8)
