"""Figures of one measured ViT, as PNG bytes: curves by layer, heads, and maps on images.

[CLS], registers and patches have the same colour and marker everywhere (Okabe and Ito 2008).
Drawn by matplotlib without a display; no state of pyplot is touched.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor
from torch.nn import functional

from dashboards.names import split_metric
from trainers.globality.measurement import Maps

INK, QUIET, LINE = "#222222", "#5c5c5c", "#d8d8d8"
DOTS = 130
"""per inch"""

SHEET_DOTS = 110
"""per inch, of sheets of many images"""

HEAT = "inferno"
LAYERS = "viridis"
MASS = 0.6
"""of a map inside its contour (Caron et al. 2021)"""

MOST_HEADS = 16
"""Heads of the final block that are drawn."""


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
    "gyration": "spread of the map (M1)\n1: as wide as uniform",
    "entropy": "entropy of the map (M2)\n1: uniform",
    "locality": "locality of patch queries (M5)\n0: none, 1: each on itself",
    "content_dependence": "content dependence (M7 C)\n0: all images alike",
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


def figures(
    metrics: Mapping[str, float],
    maps: Maps,
    *,
    model: str,
    primary: Sequence[int],
    grid: tuple[int, int],
    patch_size: int,
    check: Callable[[], None] = lambda: None,
) -> dict[str, bytes]:
    """Every figure as a PNG by its name; `check` is called before each, and may raise."""
    series = Series(metrics)
    makers: dict[str, Callable[[], Figure]] = {
        "by_layer": lambda: by_layer(series, primary),
        "heads": lambda: heads(series),
        "distance": lambda: distance(series, grid, patch_size),
        "maps": lambda: maps_of_layers(maps, grid),
        "maps_of_heads": lambda: maps_of_heads(maps, grid),
    }
    made = {}
    for name, make in makers.items():
        check()
        made[name] = _png(make(), model)
    return made


def by_layer(series: Series, primary: Sequence[int]) -> Figure:
    """Four measures of attention over depth: mean over heads, and the range of heads."""
    figure = _figure(10.5, 7.2)
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
        _dress(place)
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
    figure = _figure(1.1 + 4.1 * len(tokens), 4.4)
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
        place.set_xlabel("entropy of the map (M2), 1: uniform", fontsize=9, color=QUIET)
        _dress(place)
        place.locator_params(axis="x", nbins=5)
        _no_magnifier(place, "x")
        _no_magnifier(place, "y")
    axes[0].set_ylabel("spread of the map (M1), 1: as uniform", fontsize=9, color=QUIET)
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
    figure = _figure(10.5, 4.4)
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.14})
    cells = series("globality", "patch", "distance")
    pixels = _uniform_distance(grid) * patch_size
    _heads_by_block(left, cells, STYLES["patch"], 0.0)
    left.axhline(1, color=INK, linewidth=1, linestyle="--", zorder=1)
    left.set_title("Patches: distance from the query (M4)", loc="left", fontsize=11, color=INK)
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
    right.set_title("All: least distance from any place (M4)", loc="left", fontsize=11, color=INK)
    depth = max(cells, default=1)
    for place in (left, right):
        place.set_xlabel("block (a point is a head, a bar their mean)", fontsize=9, color=QUIET)
        place.set_ylim(0, 1.05 * place.get_ylim()[1])
        _dress(place)
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


def maps_of_layers(maps: Maps, grid: tuple[int, int]) -> Figure:
    """Of each image: the attention of the last blocks (mean over heads), rollout, influence."""
    depth = len(maps.attention)
    last = range(max(0, depth - 4), depth)
    columns = {
        f"block {number + 1}" + (" (final)" if number + 1 == depth else ""): _mean_over_heads(
            maps.attention[number]
        )
        for number in last
    }
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


def _sheet(pixels: Tensor, columns: Mapping[str, Tensor], grid: tuple[int, int]) -> Figure:
    """A row for each image: the image, then it under each map with the contour of MASS of it."""
    rows = len(pixels)
    side = 1.25 if len(columns) < 9 else 1.0
    figure = Figure(figsize=(side * (len(columns) + 1), side * rows + 0.3), dpi=SHEET_DOTS)
    FigureCanvasAgg(figure)
    figure.set_facecolor("white")
    figure.subplots_adjust(
        left=0.004, right=0.996, bottom=0.004, top=1 - 0.26 / (side * rows + 0.3),
        wspace=0.03, hspace=0.03,
    )  # fmt: skip
    axes = figure.subplots(rows, len(columns) + 1, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for row in range(rows):
        image = pixels[row].permute(1, 2, 0).numpy()
        axes[row, 0].imshow(image, interpolation="nearest")
        for place, maps in zip(axes[row, 1:], columns.values(), strict=False):
            if row < len(maps):
                _overlay(place, image, maps[row].reshape(grid))
    for place, title in zip(axes[0], ["image", *columns], strict=True):
        place.set_title(title, fontsize=8.5, color=INK, pad=3)
    return figure


def _overlay(place: Axes, image: "np.ndarray", values: Tensor) -> None:
    """The image in grey under a map from its least to its largest weight, and the contour."""
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


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DOTS, layout="constrained")
    FigureCanvasAgg(figure)
    figure.set_facecolor("white")
    return figure


def _dress(place: Axes) -> None:
    place.spines[["top", "right"]].set_visible(False)
    place.spines[["left", "bottom"]].set_color(LINE)
    place.tick_params(labelsize=8, colors=QUIET)
    place.grid(color=LINE, linewidth=0.6, alpha=0.7)
    place.ticklabel_format(useOffset=False)
    place.set_axisbelow(True)


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


def _png(figure: Figure, model: str) -> bytes:
    buffer = io.BytesIO()
    figure.text(0.004, 1.0, model, va="bottom", fontsize=9, color=QUIET)
    figure.savefig(
        buffer,
        format="png",
        bbox_inches="tight",
        pad_inches=0.06,
        metadata={"Software": "dinolab", "Title": model},
    )
    return buffer.getvalue()
