"""Measures of one ViT by block and head, drawn by matplotlib."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dashboards.figures.canvas import INK, QUIET, dress, empty_figure
from dashboards.names import split_metric

LAYERS = "viridis"


class Style(NamedTuple):
    """How a token looks in every figure."""

    name: str
    colour: str
    marker: str


STYLES = {
    "cls": Style("[CLS]", "#d55e00", "o"),
    "register": Style("registers", "#cc79a7", "D"),
    "patch": Style("patches", "#0072b2", "s"),
}

CURVES = {
    "gyration": "spread of the map\n1: as wide as uniform",
    "entropy": "entropy of the map\n1: uniform",
    "locality": "locality of patch queries\n0: none, 1: each on itself",
    "content_dependence": "content dependence\n0: all images alike",
}

Cells = dict[int, list[float]]
"""values by layer, a value for each head"""


class Series:
    """Values of single layers and heads, from metrics by name."""

    def __init__(self, metrics: Mapping[str, float]) -> None:
        found: dict[str, dict[tuple[int, int], float]] = {}
        for name, value in metrics.items():
            metric, layer, head, _ = split_metric(name)
            if layer is not None and head is not None:
                found.setdefault(metric, {})[layer, head] = value
        self._found = found

    def __call__(self, group: str, token: str, measure: str) -> Cells:
        """By layer and head; empty when it was not measured."""
        cells: Cells = {}
        for (layer, _), value in sorted(self._found.get(f"{group}/{token}/{measure}", {}).items()):
            cells.setdefault(layer, []).append(value)
        return cells


def by_layer(series: Series, primary: Sequence[int]) -> Figure:
    """Four measures of attention over depth: mean over heads, and the range of heads."""
    figure = empty_figure(10.5, 7.2)
    axes = figure.subplots(2, 2, sharex=True)
    shown: dict[str, Any] = {}
    for place, (measure, title) in zip(axes.flat, CURVES.items(), strict=True):
        for token, style in STYLES.items():
            cells = series("globality", token, measure)
            if not cells:
                continue
            layers = list(cells)
            means = [float(np.mean(cells[layer])) for layer in layers]
            (line,) = place.plot(
                layers, means, color=style.colour, marker=style.marker, linewidth=2, markersize=6
            )
            shown[style.name] = line
            low = [min(cells[layer]) for layer in layers]
            high = [max(cells[layer]) for layer in layers]
            place.fill_between(layers, low, high, color=style.colour, alpha=0.09, linewidth=0)
            control = series("shuffled", token, measure)
            if control:
                means = [float(np.mean(control[layer])) for layer in control]
                place.plot(list(control), means, color=style.colour, linestyle=":", linewidth=1.4)
        uniform = 1.0 if measure in ("gyration", "entropy") else 0.0
        shown["uniform attention"] = place.axhline(
            uniform, color=QUIET, linewidth=1, linestyle="--", zorder=1
        )
        shown["primary layers"] = place.axvspan(
            min(primary) - 0.5, max(primary) + 0.5, color="#777777", alpha=0.08, linewidth=0
        )
        place.set_title(title.split("\n")[0], loc="left", fontsize=11, color=INK)
        place.set_ylabel(title.split("\n")[1], fontsize=9, color=QUIET)
        dress(place)
        _no_magnifier(place, "y")
        _whole_layers(place, max(series("globality", "patch", "gyration"), default=1))
    for place in axes[1]:
        place.set_xlabel("block", fontsize=9, color=QUIET)
    shown["on shuffled images"] = Line2D([], [], color=QUIET, linestyle=":", linewidth=1.4)
    figure.legend(
        shown.values(),
        shown.keys(),
        loc="outside lower center",
        ncols=len(shown),
        frameon=False,
        fontsize=9,
    )
    return figure


def heads(series: Series) -> Figure:
    """Each head as a point: entropy against gyration of its maps, coloured by its block."""
    tokens = [token for token in STYLES if series("globality", token, "gyration")]
    figure = empty_figure(1.1 + 4.1 * len(tokens), 4.4)
    axes = figure.subplots(1, len(tokens), sharex=True, sharey=True, squeeze=False)[0]
    depth = 1
    for place, token in zip(axes, tokens, strict=True):
        spread, evenness = (series("globality", token, name) for name in ("gyration", "entropy"))
        depth = max(depth, *spread)
        colours = Normalize(1, max(depth, 2))
        points = [
            (even, wide, layer)
            for layer in spread
            for even, wide in zip(evenness.get(layer, []), spread[layer], strict=False)
        ]
        place.axhline(1, color=QUIET, linewidth=1, linestyle="--", zorder=1)
        place.axvline(1, color=QUIET, linewidth=1, linestyle="--", zorder=1)
        place.scatter(
            [point[0] for point in points],
            [point[1] for point in points],
            c=[point[2] for point in points],
            cmap=LAYERS,
            norm=colours,
            marker=STYLES[token].marker,
            s=38,
            edgecolors="white",
            linewidths=0.6,
            zorder=3,
        )
        place.set_title(STYLES[token].name, loc="left", fontsize=11, color=INK)
        place.set_xlabel("entropy of the map, 1: uniform", fontsize=9, color=QUIET)
        dress(place)
        place.locator_params(axis="x", nbins=5)
        _no_magnifier(place, "x")
        _no_magnifier(place, "y")
    axes[0].set_ylabel("spread of the map, 1: as uniform", fontsize=9, color=QUIET)
    bar = figure.colorbar(
        ScalarMappable(Normalize(1, max(depth, 2)), LAYERS), ax=list(axes), pad=0.015, aspect=28
    )
    bar.set_label("block", fontsize=9, color=QUIET)
    bar.set_ticks([1, *(tick for tick in _ticks(depth) if 1 < tick < depth), max(depth, 2)])
    bar.ax.tick_params(labelsize=8, colors=QUIET)
    bar.outline.set_visible(False)
    return figure


def distance(series: Series, grid: tuple[int, int], patch_size: int) -> Figure:
    """Mean attention distance of every head by block, as in Dosovitskiy et al. (2021), figure 11.

    Of patch queries from the query; and from the place for which it is least, which also exists for
    tokens that stand nowhere.
    """
    figure = empty_figure(10.5, 4.4)
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.14})
    cells = series("globality", "patch", "distance")
    pixels = _uniform_distance(grid) * patch_size
    _heads_by_block(left, cells, STYLES["patch"], 0.0)
    left.axhline(1, color=INK, linewidth=1, linestyle="--", zorder=1)
    left.set_title("Patches: distance from the query", loc="left", fontsize=11, color=INK)
    left.set_ylabel("mean distance, over that of uniform attention", fontsize=9, color=QUIET)
    scale = left.secondary_yaxis(
        "right", functions=(lambda ratio: ratio * pixels, lambda length: length / pixels)
    )
    scale.set_ylabel("about pixels", fontsize=9, color=QUIET)
    scale.tick_params(labelsize=8, colors=QUIET)
    scale.spines[:].set_visible(False)
    shift = {"cls": -0.17, "register": 0.0, "patch": 0.17}
    for token, style in STYLES.items():
        found = series("globality", token, "nearest_distance")
        _heads_by_block(right, found, style, shift[token])
    right.axhline(1, color=INK, linewidth=1, linestyle="--", zorder=1)
    right.set_ylabel("least mean distance, over that of uniform", fontsize=9, color=QUIET)
    right.set_title("All: least distance from any place", loc="left", fontsize=11, color=INK)
    depth = max(cells, default=1)
    for place in (left, right):
        place.set_xlabel("block (a point is a head, a bar their mean)", fontsize=9, color=QUIET)
        place.set_ylim(0, 1.05 * place.get_ylim()[1])
        dress(place)
        _whole_layers(place, depth)
    handles, names = right.get_legend_handles_labels()
    line = left.get_lines()[-1]
    figure.legend(
        [*handles, line],
        [*names, "uniform attention"],
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=9,
    )
    return figure


def _heads_by_block(place: Axes, cells: Cells, style: Style, shift: float) -> None:
    if not cells:
        return
    points = [(layer + shift, value) for layer, values in cells.items() for value in values]
    place.scatter(
        [x for x, _ in points],
        [y for _, y in points],
        color=style.colour,
        marker=style.marker,
        s=22,
        alpha=0.75,
        linewidths=0,
        zorder=3,
        label=style.name,
    )
    place.hlines(
        [float(np.mean(values)) for values in cells.values()],
        [layer + shift - 0.16 for layer in cells],
        [layer + shift + 0.16 for layer in cells],
        color=style.colour,
        linewidth=2,
        zorder=4,
    )


def _uniform_distance(grid: tuple[int, int]) -> float:
    """Mean distance of two different patches, in patches."""
    rows, columns = torch.arange(grid[0]).float(), torch.arange(grid[1]).float()
    x = torch.cartesian_prod(rows, columns)
    return float(torch.cdist(x, x).sum() / (len(x) * (len(x) - 1)))


def _no_magnifier(place: Axes, axis: str, least: float = 0.05) -> None:
    """Show no less than `least` of an axis: what is nearly uniform must look so."""
    low, high = getattr(place, f"get_{axis}lim")()
    if high - low < least:
        middle = (low + high) / 2
        getattr(place, f"set_{axis}lim")(middle - least / 2, middle + least / 2)


def _ticks(depth: int) -> list[int]:
    step = max(1, math.ceil(depth / 12))
    return list(range(1, depth + 1, step))


def _whole_layers(place: Axes, depth: int) -> None:
    place.set_xlim(0.4, depth + 0.6)
    place.set_xticks(_ticks(depth))
