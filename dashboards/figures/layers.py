"""Globality by layer, at step 0 and at the end."""

import math

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards.figures.compared import is_finished
from dashboards.figures.curves import _spread
from dashboards.figures.style import (
    MUTED,
    Drawing,
    arm_styles,
    axes_of,
    axis_of,
    empty_figure,
    whole_ticks,
    wrapped,
)
from dashboards.tables.reading import StudyRun


def globality_by_layer(study: StudyRun) -> go.Figure:
    """Gyration of the attention of [CLS] and of patches by layer, one panel per arm.

    Four traces for each arm: [CLS] and patch, each at step 0 (dashed) and at the end (solid), means
    over heads and over finished seeds. 1 is the gyration of uniform attention.
    """
    table = _by_layer(study)
    if table.empty:
        return empty_figure("Globality by layer was not measured yet.")
    arms, styles = study.arms, arm_styles(study.arms)
    columns = min(3, len(arms))
    rows = math.ceil(len(arms) / columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes=True,
        subplot_titles=[f"<b>{wrapped(arm, 30)}</b>" for arm in arms],
        horizontal_spacing=0.04 if columns > 1 else 0,
        vertical_spacing=0.28 / rows,
    )
    last = int(table["layer"].max())
    low, high = min(float(table["value"].min()), 1.0), max(float(table["value"].max()), 1.0)
    gap = 0.08 * (high - low or 1.0)
    figure.update_yaxes(range=[low - gap, high + gap])
    drawing = Drawing(figure)
    for number, arm in enumerate(arms):
        names: dict[str, float] = {}
        for token, name, symbol in (("cls", "[CLS]", "circle"), ("patch", "patch", "square-open")):
            for when, dash, opacity in (("start", "dot", 0.7), ("end", "solid", 1.0)):
                line = table[
                    (table["arm"] == arm) & (table["token"] == token) & (table["when"] == when)
                ]
                drawing.scatter(
                    name=f"{arm}: {name}, {'step 0' if when == 'start' else 'end'}",
                    x=line["layer"].tolist(),
                    y=line["value"].tolist(),
                    mode="lines+markers",
                    opacity=opacity,
                    line={
                        "color": styles[arm].colour,
                        "dash": dash,
                        "width": 1.5 if when == "start" else 2.5,
                    },
                    marker={"symbol": symbol, "size": 5 if when == "start" else 9},
                    hovertemplate=f"{name}, layer %{{x}}: %{{y:.4f}}"
                    f"<extra>{'step 0' if when == 'start' else 'end'}</extra>",
                    number=number,
                )
                if when == "end" and not line.empty:
                    names[name] = float(line["value"].iloc[-1])
        if not names:
            drawing.text_in_panel("no finished run", number)
        for name, y in _spread(names, 0.9 * gap, low=low - gap, high=high + gap).items():
            drawing.text(
                name,
                x=last + 0.15,
                y=y,
                xanchor="left",
                colour=styles[arm].colour,
                size=12,
                **axes_of(number),
            )
        axis_of(figure, "x", number).update(
            title="layer",
            tickvals=whole_ticks(last),
            range=[0.7, last + 0.12 * last + 0.55],
        )
        axes = axes_of(number)
        drawing.shape(
            type="line",
            line={"color": MUTED, "width": 1},
            x0=0,
            x1=1,
            xref=f"{axes['xref']} domain",
            y0=1.0,
            y1=1.0,
            yref=axes["yref"],
        )
    figure.update_yaxes(title="gyration (uniform = 1)", col=1)
    return drawing.finish(height=70 + 320 * rows, left=20, right=20, top=50)


def _by_layer(study: StudyRun) -> pd.DataFrame:
    """Gyration by arm, token, when (start or end) and layer: columns of those names, and value.

    Means over the heads, then over the finished seeds; a layer that was recorded whole, without its
    heads, is taken as it is.
    """
    table = study.table
    chosen = table[
        table["metric"].isin(["globality/cls/gyration", "globality/patch/gyration"])
        & table["layer"].notna()
    ]
    places = zip(chosen["arm"], chosen["seed"], strict=True)
    chosen = chosen[[is_finished(study, arm, seed) for arm, seed in places]]
    columns = ["arm", "token", "when", "layer"]
    if chosen.empty:
        return pd.DataFrame(columns=[*columns, "value"])
    final = chosen.groupby(["arm", "seed"])["step"].transform("max")
    first = chosen[chosen["step"] == 0].assign(when="start")
    last = chosen[(chosen["step"] == final) & (chosen["step"] > 0)].assign(when="end")
    both = pd.concat([first, last])
    per_seed = both.groupby([*columns, "seed"])["value"].mean().reset_index()
    return per_seed.groupby(columns)["value"].mean().reset_index()
