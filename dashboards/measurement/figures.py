"""Every figure of one measured ViT, as PNG bytes."""

import io
from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from dashboards.figures.blocks import Series, by_layer, distance, heads
from dashboards.figures.canvas import QUIET
from dashboards.figures.maps import maps_of_heads, maps_of_layers, norms_and_components
from trainers.globality.measurement import Maps


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
        "tokens": lambda: norms_and_components(maps, grid),
    }
    made = {}
    for name, make in makers.items():
        check()
        made[name] = _png(make(), model)
    return made


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
