"""Both sides of every hypothesis, seed by seed."""

import html
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from dashboards.figures.compared import end_point, how_ended, sides_of
from dashboards.figures.style import (
    MUTED,
    ArmStyle,
    Drawing,
    arm_styles,
    axes_of,
    empty_figure,
    metric_title,
    panels,
    wrapped,
)
from dashboards.tables.reading import StudyRun


def paired_seeds(study: StudyRun, verdicts: Mapping[str, Any]) -> go.Figure:
    """One panel per hypothesis: a line for each seed, from the arm compared with to the arm.

    Three traces for each hypothesis: lines, the values of each of the two arms. Values of runs that
    did not finish are crosses. A contrast of one arm has its values only, over a line at 0.
    """
    entries = list(verdicts["hypotheses"].items())
    if not entries:
        return empty_figure("No hypotheses were declared.")
    styles = arm_styles(study.arms)
    figure, rows = panels(
        [wrapped(f"{name} ({entry['stated']['word']})", 34) for name, entry in entries]
    )
    drawing = Drawing(figure)
    for number, (name, entry) in enumerate(entries):
        hypothesis = entry["hypothesis"]
        arm, against = sides_of(hypothesis)
        pairs = [pair for pair in entry["verdict"]["pairs"] if pair["difference"] is not None]
        lines = pairs if against else []
        drawing.scatter(
            name=f"{name}: pairs",
            x=[x for _ in lines for x in (0, 1, None)],
            y=[y for pair in lines for y in (pair["against"], pair["arm"], None)],
            mode="lines",
            line={"color": MUTED, "width": 1.2},
            hoverinfo="skip",
            number=number,
        )
        for x, who, key in ((0, against, "against"), (1, arm, "arm")):
            shown = [pair for pair in entry["verdict"]["pairs"] if who and pair[key] is not None]
            ended = [how_ended(study, who, pair["seed"]) for pair in shown]
            style = styles.get(who, ArmStyle(MUTED, "circle"))
            drawing.scatter(
                name=f"{name}: {who}",
                x=[x] * len(shown),
                y=[pair[key] for pair in shown],
                mode="markers",
                marker={
                    "color": style.colour,
                    "size": 9,
                    "symbol": [style.symbol if status == "finished" else "x" for status in ended],
                },
                customdata=[
                    [pair["seed"], status] for pair, status in zip(shown, ended, strict=True)
                ],
                hovertemplate=f"{html.escape(who)}, seed %{{customdata[0]}}, %{{customdata[1]}}: "
                "%{y:.4g}<extra></extra>",
                number=number,
            )
        drawing.axis(
            "x",
            number,
            tickvals=[0, 1],
            ticktext=[wrapped(against, 18), wrapped(arm, 18)],
            range=[-0.35, 1.35] if against else [0, 2],
            showgrid=False,
        )
        if pairs and not against:
            drawing.shape(
                type="line",
                line={"color": MUTED, "width": 1},
                x0=0,
                x1=2,
                y0=0,
                y1=0,
                **axes_of(number),
            )
        title = metric_title(end_point(hypothesis), minus_start=hypothesis["minus_start"])
        drawing.axis("y", number, title=title)
        if not pairs:
            drawing.text_in_panel("no pair of values", number)
    return drawing.finish(height=60 + 330 * rows, left=20, right=20, top=50)
