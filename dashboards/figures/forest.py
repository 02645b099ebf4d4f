"""Forest of all hypotheses: effects and intervals beside what was predicted."""

import html
import math
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from dashboards.figures.compared import compared, end_point
from dashboards.figures.style import LABEL_COLOURS, MUTED, Drawing, empty_figure

PREDICTED = "rgba(0, 158, 115, 0.13)"

LABEL_SYMBOLS = {
    "supported": "circle",
    "refuted": "diamond",
    "equivalent": "square",
    "insensitive": "square-open",
    "inconclusive": "circle-open",
    "failed": "x",
}

LINEAR_UP_TO = 8.0
"""Largest effect, in smallest effects of interest, that the forest shows on a linear axis."""


def verdict_intervals(verdicts: Mapping[str, Any]) -> go.Figure:
    """Forest of all hypotheses, arm minus against in smallest effects of interest.

    Four traces for each hypothesis: seeds, interval, the narrower interval of the equivalence
    test, mean. The dashed band is ± the smallest effect, the green one where the prediction lies.
    """
    drawing = Drawing(go.Figure())
    entries = list(verdicts["hypotheses"].items())
    if not entries:
        return empty_figure("No hypotheses were declared.")
    largest = max((abs(x) for _, entry in entries for x in _effects(entry)), default=0.0)
    stretched = largest > LINEAR_UP_TO
    place = math.asinh if stretched else float
    edge = 1.08 * place(max(largest, 2.0))
    for row, (name, entry) in enumerate(entries):
        hypothesis, verdict = entry["hypothesis"], entry["verdict"]
        scale, y = hypothesis["smallest_effect"], float(-row)
        colour = LABEL_COLOURS[verdict["label"]]
        one = place(1.0)
        predicted = {
            "rises": [(one, edge)],
            "falls": [(-edge, -one)],
            "differs": [(-edge, -one), (one, edge)],
            "holds": [(-one, one)],
        }
        for low, high in predicted[hypothesis["direction"]]:
            drawing.shape(
                type="rect",
                x0=low,
                x1=high,
                y0=y - 0.28,
                y1=y + 0.14,
                line_width=0,
                fillcolor=PREDICTED,
            )
        for x, dash in ((-one, "dash"), (0.0, "solid"), (one, "dash")):
            drawing.shape(
                type="line",
                x0=x,
                x1=x,
                y0=y - 0.28,
                y1=y + 0.14,
                line={"color": MUTED, "width": 1.2, "dash": dash},
            )
        pairs = [pair for pair in verdict["pairs"] if pair["difference"] is not None]
        drawing.scatter(
            name=f"{name}: seeds",
            x=[place(pair["difference"] / scale) for pair in pairs],
            y=[y - 0.18] * len(pairs),
            mode="markers",
            marker={"color": MUTED, "size": 7, "symbol": "circle-open"},
            customdata=[[pair["seed"], pair["difference"]] for pair in pairs],
            hovertemplate="seed %{customdata[0]}: %{customdata[1]:.4g}<extra></extra>",
        )
        for part, key, width in (
            ("interval", "interval", 2),
            ("equivalence interval", "interval_equivalence", 6),
        ):
            ends = verdict[key] or []
            drawing.scatter(
                name=f"{name}: {part}",
                x=[place(end / scale) for end in ends],
                y=[y] * len(ends),
                mode="lines",
                line={"color": colour, "width": width},
                hoverinfo="skip",
            )
        is_open = LABEL_SYMBOLS[verdict["label"]].endswith("-open")
        mean = [] if verdict["mean"] is None else [verdict["mean"]]
        drawing.scatter(
            name=f"{name}: mean",
            x=[place(value / scale) for value in mean],
            y=[y] * len(mean),
            mode="markers",
            marker={
                "color": colour,
                "size": 11,
                "symbol": LABEL_SYMBOLS[verdict["label"]],
                "line": {"width": 2 if is_open else 0, "color": colour},
            },
            customdata=mean,
            hovertemplate="mean difference %{customdata:.4g}<extra></extra>",
        )
        drawing.text(
            f"<b>{html.escape(name)}</b>",
            x=0,
            y=y + 0.46,
            xref="paper",
            xanchor="left",
        )
        change = ", minus step 0" if hypothesis["minus_start"] else ""
        drawing.text(
            f"{html.escape(compared(hypothesis))}, {html.escape(end_point(hypothesis))}"
            f"{change}: {hypothesis['direction']}, ±1 is {scale:g}",
            x=0,
            y=y + 0.28,
            xref="paper",
            xanchor="left",
            size=12,
        )
        tags = f" ({', '.join(verdict['tags'])})" if verdict["tags"] else ""
        drawing.text(
            f"<b>{verdict['label']}</b>{tags}, {entry['stated']['word']}",
            x=1,
            y=y + 0.46,
            xref="paper",
            xanchor="right",
            colour=colour,
        )
        if not mean:
            drawing.text("no finished pair", x=0, y=y - 0.07, xanchor="left", xshift=8, size=12)
    note = " (compressed beyond ±1)" if stretched else ""
    drawing.axis(
        "x",
        title=f"mean difference, in smallest effects of interest{note}",
        range=[-edge, edge],
        ticks="outside",
        tickcolor=MUTED,
        showgrid=False,
    )
    if stretched:
        ticks = [t for t in round_numbers() if abs(place(t)) <= edge]
        text = [f"{t:g}".replace("-", "−") for t in ticks]
        drawing.axis("x", tickvals=[place(t) for t in ticks], ticktext=text)
    drawing.axis("y", visible=False, range=[0.65 - len(entries), 0.62])
    return drawing.finish(height=70 + 112 * len(entries), left=24, right=24, top=10)


def _effects(entry: Mapping[str, Any]) -> list[float]:
    """Everything a row of the forest shows, in smallest effects of interest."""
    verdict = entry["verdict"]
    shown = [pair["difference"] for pair in verdict["pairs"] if pair["difference"] is not None]
    shown += [end for key in ("interval", "interval_equivalence") for end in verdict[key] or []]
    return [value / entry["hypothesis"]["smallest_effect"] for value in shown]


def round_numbers() -> list[float]:
    """Round numbers of both signs: 0, 1, 3, 10, 30, and so on."""
    sizes = [size * 10.0**power for power in range(13) for size in (1, 3)]
    return [*(-size for size in reversed(sizes)), 0.0, *sizes]
