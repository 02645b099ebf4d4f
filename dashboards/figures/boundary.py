"""The looks of a sequential design: p of each hypothesis against the boundary."""

import math
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from dashboards.figures.style import (
    LABEL_COLOURS,
    MUTED,
    Drawing,
    empty_figure,
    panels,
    wrapped,
)

LEAST = 1e-6
"""p that is drawn where it is less."""


def boundary(verdicts: Mapping[str, Any]) -> go.Figure:
    """One panel per hypothesis, seeds against p on a logarithmic axis.

    Five traces for each: p of no difference and its boundary, for one hypothesis alone and for the
    first of its family; p of equivalence and its boundary.
    """
    entries = list(verdicts["hypotheses"].items())
    if not entries:
        return empty_figure("No hypotheses were declared.")
    figure, rows = panels(
        [wrapped(f"{name} ({entry['stated']['word']})", 34) for name, entry in entries]
    )
    drawing = Drawing(figure)
    for number, (name, entry) in enumerate(entries):
        verdict = entry["verdict"]
        looks = [look for look in verdict["looks"] if look["p"] is not None]
        seeds = [look["seeds"] for look in looks]
        colour = LABEL_COLOURS[verdict["label"]]
        for part, level, dash in (
            ("boundary", "level", "solid"),
            ("boundary of the first", "level_first", "dash"),
            ("boundary of equivalence", "level_equivalence", "dot"),
        ):
            drawing.scatter(
                name=f"{name}: {part}",
                x=seeds,
                y=[look[level] for look in looks],
                mode="lines+markers",
                marker={"color": MUTED, "size": 4},
                line={"color": MUTED, "width": 1.2, "dash": dash},
                hovertemplate=f"{part}: %{{y:.2g}}<extra></extra>",
                number=number,
            )
        for part, key, symbol in (
            ("no difference", "p", "circle"),
            ("equivalence", "p_equivalence", "circle-open"),
        ):
            drawing.scatter(
                name=f"{name}: {part}",
                x=seeds,
                y=[max(look[key], LEAST) for look in looks],
                mode="markers",
                marker={"color": colour, "size": 10, "symbol": symbol},
                customdata=[[look["label"], look[key]] for look in looks],
                hovertemplate=f"%{{x}} seeds, p of {part} %{{customdata[1]:.2g}}: "
                "%{customdata[0]}<extra></extra>",
                number=number,
            )
        last = verdict["seeds_planned"]
        drawing.axis("x", number, title="seeds", range=[0, last + 1], showgrid=False)
        drawing.axis("y", number, title="p", type="log", range=[math.log10(LEAST), 0.1])
        if not looks:
            drawing.text_in_panel("not looked at yet", number)
    return drawing.finish(height=60 + 330 * rows, left=20, right=20, top=50)
