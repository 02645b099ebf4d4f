"""Where one query of a ViT looks: maps over images, drawn by matplotlib."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from dashboards.figures.canvas import INK, SHEET_DOTS
from dashboards.figures.tiles import HEAT, MASS
from trainers.globality.measurement import Maps

MOST_HEADS = 16
"""Heads of the final block that are drawn."""


def maps_of_layers(maps: Maps, grid: tuple[int, int]) -> Figure:
    """Of each image: the attention of the last blocks (mean over heads), rollout, influence."""
    depth = len(maps.attention)
    last = range(max(0, depth - 4), depth)
    columns = {_block(number, depth): _mean_over_heads(maps.attention[number]) for number in last}
    columns["rollout"] = maps.rollout
    if maps.influence is not None:
        columns["influence"] = maps.influence
    return _sheet(maps.pixels, columns, grid)


def maps_of_heads(maps: Maps, grid: tuple[int, int]) -> Figure:
    """Of each image: every head of the final block."""
    final = maps.attention[-1]
    columns = {
        f"head {head + 1}": final[:, head] for head in range(min(final.shape[1], MOST_HEADS))
    }
    return _sheet(maps.pixels, columns, grid)


def _mean_over_heads(maps_BHN: Tensor) -> Tensor:
    return maps_BHN.nanmean(1)


def norms_and_components(maps: Maps, grid: tuple[int, int]) -> Figure:
    """Of each image: norms of the patch tokens after the last blocks, and what patches are like.

    Norms of a block are on one scale for all images. The last column has the three first principal
    components of the network's patch tokens as red, green and blue.
    """
    depth = len(maps.norms)
    last = range(max(0, depth - 4), depth)

    def norms_of(number: int) -> Draw:
        values = maps.norms[number]
        low, high = float(values.min()), float(values.max())

        def draw(place: Axes, image: "np.ndarray", row: int) -> None:
            shown = values[row].reshape(grid).numpy()
            place.imshow(shown, cmap=HEAT, vmin=low, vmax=high, interpolation="nearest")

        return draw

    def components(place: Axes, image: "np.ndarray", row: int) -> None:
        shown = maps.components[row].reshape(3, *grid).permute(1, 2, 0).numpy()
        place.imshow(shown, interpolation="nearest")

    columns: dict[str, Draw] = {
        f"{_block(number, depth)}\n{float(maps.norms[number].min()):.3g} to "
        f"{float(maps.norms[number].max()):.3g}": norms_of(number)
        for number in last
    }
    return _drawn(maps.pixels, {**columns, "components": components}, above=0.42)


def _block(number: int, depth: int) -> str:
    return f"block {number + 1}" + (" (final)" if number + 1 == depth else "")


Draw = Callable[[Axes, "np.ndarray", int], None]
"""draws one place of a sheet: an image, [S, S, 3], and its number"""


def _sheet(pixels: Tensor, columns: Mapping[str, Tensor], grid: tuple[int, int]) -> Figure:
    """A row for each image: the image, then it under each map with the contour of MASS of it."""

    def under(maps: Tensor) -> Draw:
        def draw(place: Axes, image: "np.ndarray", row: int) -> None:
            if row < len(maps):
                _overlay(place, image, maps[row].reshape(grid))

        return draw

    return _drawn(pixels, {title: under(maps) for title, maps in columns.items()})


def _drawn(pixels: Tensor, columns: Mapping[str, Draw], above: float = 0.26) -> Figure:
    """A row for each image: the image, then what each column draws; `above` inches for titles."""
    rows = len(pixels)
    side = 1.25 if len(columns) < 9 else 1.0
    height = side * rows + above + 0.04
    figure = Figure(figsize=(side * (len(columns) + 1), height), dpi=SHEET_DOTS)
    FigureCanvasAgg(figure)
    figure.set_facecolor("white")
    figure.subplots_adjust(
        left=0.004, right=0.996, bottom=0.004, top=1 - above / height, wspace=0.03, hspace=0.03
    )
    axes = figure.subplots(rows, len(columns) + 1, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for row in range(rows):
        image = pixels[row].permute(1, 2, 0).numpy()
        axes[row, 0].imshow(image, interpolation="nearest")
        for place, draw in zip(axes[row, 1:], columns.values(), strict=True):
            draw(place, image, row)
    for place, title in zip(axes[0], ["image", *columns], strict=True):
        place.set_title(title, fontsize=8.5, color=INK, pad=3)
    return figure


def _overlay(place: Axes, image: "np.ndarray", values: Tensor) -> None:
    """The image in grey under a map, from its least to nearly its largest weight, and a contour."""
    size = (image.shape[0], image.shape[1])
    if not torch.isfinite(values).all():
        place.imshow(image // 2 + 127, interpolation="nearest")
        place.text(0.5, 0.5, "no map", transform=place.transAxes, ha="center", va="center")
        return
    inside = _holding(values, MASS)
    large = functional.interpolate(
        values[None, None], size, mode="bicubic", align_corners=False
    )[0, 0].clamp(min=0)  # fmt: skip
    high = float(torch.quantile(values.flatten(), 0.995))
    # A patch that looks does not count itself, and is 0.
    low = float(values[values > 0].min()) if values.max() > 0 else 0.0
    grey = np.asarray(image, dtype=float).mean(2) / 255
    place.imshow(0.25 + 0.75 * grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    # A map that is uniform but for noise stays dark: 1 / N is the weight of uniform attention.
    shade = ((large - low) / max(high - low, 1 / values.numel())).clamp(0, 1).numpy()
    place.imshow(shade, cmap=HEAT, vmin=0, vmax=1, alpha=0.35 + 0.45 * shade)
    edges = functional.interpolate(inside[None, None].float(), size, mode="nearest")[0, 0].numpy()
    if 0 < edges.mean() < 1:
        place.contour(np.pad(edges, 0), levels=[0.5], colors="#ffffff", linewidths=0.8)


def _holding(values: Tensor, mass: float) -> Tensor:
    """The fewest patches that hold `mass` of a map, as DINO draws them: bool, shape of the map."""
    flat = values.flatten()
    order = flat.argsort(descending=True, stable=True)
    before = flat[order].cumsum(0) - flat[order]
    inside = torch.zeros_like(flat, dtype=torch.bool)
    inside[order] = before < mass * flat.sum()
    return inside.view_as(values)
