"""Contrasts along an ordered factor, and where they cross 0."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from scipy import stats

from ablations.contrast import BASELINE
from ablations.hypothesis import contrast_text
from dashboards.figures.style import (
    LABEL_COLOURS,
    LONGEST_TITLE,
    MUTED,
    Drawing,
    axes_of,
    empty_figure,
    metric_title,
    panels,
    wrapped,
)


def crossing_claims(verdicts: Mapping[str, Any]) -> tuple[str, ...]:
    """The claims that something crosses 0, by name."""
    return tuple(name for name, entry in verdicts["claims"].items() if "crossed" in entry)


def crossings(verdicts: Mapping[str, Any], claims: Sequence[str] | None = None) -> go.Figure:
    """One panel for each of these claims, or of all: the contrast at each rung of its factor.

    Three traces for each: a thin line for each seed, the means joined by lines, with an interval
    each, and where the mean crosses 0. Behind them the confidence set of that place is shaded.
    """
    shown = crossing_claims(verdicts) if claims is None else tuple(claims)
    if not shown:
        return empty_figure("No claim is of a crossing.")
    words = {name: verdicts["claims"][name]["stated"]["word"] for name in shown}
    figure, rows = panels([wrapped(f"{name} ({words[name]})", 44) for name in shown], most=2)
    drawing = Drawing(figure)
    for number, name in enumerate(shown):
        _panel(drawing, verdicts["claims"][name], html.escape(name), number)
    return drawing.finish(height=70 + 340 * rows, left=20, right=20, top=50)


def _panel(drawing: Drawing, entry: Mapping[str, Any], name: str, number: int) -> None:
    crossing, crossed = entry["claim"]["crossing"], entry["crossed"]
    rungs, found = crossed["rungs"], crossed["found"]
    colour = LABEL_COLOURS[entry["verdict"]["label"]]
    places = [rung["place"] for rung in rungs]
    by_seed = list(zip(*(rung["values"] for rung in rungs), strict=True))
    drawing.scatter(
        name=f"{name}: seeds",
        x=[x for _ in by_seed for x in (*places, None)],
        y=[y for values in by_seed for y in (*values, None)],
        mode="lines+markers",
        marker={"color": MUTED, "size": 4},
        line={"color": MUTED, "width": 1},
        opacity=0.6,
        hoverinfo="skip",
        number=number,
    )
    means = [_mean_and_half(rung["values"], crossed["level"]) for rung in rungs]
    drawing.scatter(
        name=f"{name}: mean",
        x=places,
        y=[mean for mean, _ in means],
        error_y={"type": "data", "array": [half for _, half in means], "thickness": 1.5},
        mode="lines+markers",
        marker={"color": colour, "size": 9},
        line={"color": colour, "width": 2.5},
        customdata=[html.escape(rung["level"]) for rung in rungs],
        hovertemplate="%{customdata}: %{y:.4g} ± %{error_y.array:.2g}<extra></extra>",
        number=number,
    )
    at = found["at"] if found else []
    drawing.scatter(
        name=f"{name}: crossing",
        x=at,
        y=[0.0] * len(at),
        mode="markers",
        marker={"color": colour, "size": 13, "symbol": "x"},
        hovertemplate="crosses 0 at %{x:.4g}<extra></extra>",
        number=number,
    )
    axes = axes_of(number)
    drawing.shape(
        type="line", x0=0, x1=1, y0=0, y1=0, line={"color": MUTED, "width": 1.2},
        xref=f"{axes['xref']} domain", yref=axes["yref"],
    )  # fmt: skip
    for low, high in found["within"] if found else ():
        drawing.shape(
            type="rect", x0=low, x1=high, y0=0, y1=1, fillcolor=colour, opacity=0.15,
            line={"width": 0}, xref=axes["xref"], yref=f"{axes['yref']} domain",
        )  # fmt: skip
    margin = 0.08 * (places[-1] - places[0])
    drawing.axis(
        "x",
        number,
        tickvals=places,
        ticktext=[f"{rung['place']:g}<br>{wrapped(rung['level'], 16)}" for rung in rungs],
        range=[places[0] - margin, places[-1] + margin],
        showgrid=False,
    )
    of = contrast_text(crossing["contrast"])
    title = metric_title(crossing["metric"], minus_start=crossing["minus_start"])
    title = title if of == BASELINE else f"{wrapped(of, LONGEST_TITLE)}:<br>{title}"
    drawing.axis("y", number, title=title)


def _mean_and_half(
    values: Sequence[float | None], level: float
) -> tuple[float | None, float | None]:
    """Mean of the values that are there, and half the width of its interval."""
    there = [value for value in values if value is not None]
    if not there:
        return None, None
    mean = math.fsum(there) / len(there)
    if len(there) < 2:
        return mean, None
    half = stats.t.ppf((1 + level) / 2, len(there) - 1) * stats.sem(there)
    return mean, float(half)
