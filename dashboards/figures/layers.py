"""Globality by layer, at step 0 and at the end."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.compute as pc
from plotly.subplots import make_subplots

from dashboards.figures.compared import is_finished
from dashboards.figures.curves import _spread
from dashboards.figures.style import (
    MUTED,
    Drawing,
    arm_styles,
    axes_of,
    empty_figure,
    whole_ticks,
    wrapped,
)
from dashboards.tables.reading import GLOBALITY, StudyRun


def globality_by_layer(study: StudyRun, arms: Sequence[str] | None = None) -> go.Figure:
    """Gyration of the attention of [CLS] and of patches by layer, one panel per arm (or of `arms`).

    Four traces for each arm: [CLS] and patch, each at step 0 (dashed) and at the end (solid), means
    over heads and over finished seeds. 1 is the gyration of uniform attention.
    """
    lines = by_layer(study)
    if not lines:
        return empty_figure("Globality by layer was not measured yet.")
    arms, styles = arms or study.arms, arm_styles(study.arms)
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
    last = max(layer for line in lines.values() for layer in line)
    values = [value for line in lines.values() for value in line.values()]
    low, high = min(*values, 1.0), max(*values, 1.0)
    gap = 0.08 * (high - low or 1.0)
    drawing = Drawing(figure)
    for number in range(rows * columns):
        title = "gyration (uniform = 1)" if number % columns == 0 else ""
        drawing.axis("y", number, title=title, range=[low - gap, high + gap])
    for number, arm in enumerate(arms):
        names: dict[str, float] = {}
        for token, name, symbol in (("cls", "[CLS]", "circle"), ("patch", "patch", "square-open")):
            for when, dash, opacity in (("start", "dot", 0.7), ("end", "solid", 1.0)):
                line = lines.get((arm, token, when), {})
                drawing.scatter(
                    name=f"{arm}: {name}, {'step 0' if when == 'start' else 'end'}",
                    x=list(line),
                    y=list(line.values()),
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
                if when == "end" and line:
                    names[name] = line[max(line)]
        if not names:
            drawing.text_in_panel("no finished run", number)
        for name, y in _spread(names, 0.9 * gap, low=low - gap, high=high + gap).items():
            drawing.text(
                name,
                x=last + 0.15,
                y=y,
                xanchor="left",
                size=12,
                **axes_of(number),
            )
        drawing.axis(
            "x",
            number,
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
    return drawing.finish(height=70 + 320 * rows, left=20, right=20, top=50)


def by_layer(study: StudyRun) -> dict[tuple[str, str, str], dict[int, float]]:
    """Gyration by layer, of each arm, token and when (start or end).

    Means over the heads, then over the finished seeds; a layer that was recorded whole, without its
    heads, is taken as it is.
    """
    table = study.table
    own = pc.and_(pc.is_in(table["metric"], pa.array(GLOBALITY)), pc.is_valid(table["layer"]))
    table = table.filter(pc.and_(own, pc.invert(pc.is_nan(table["value"]))))
    when = pc.if_else(pc.equal(table["step"], 0), "start", "end")
    table = table.append_column("when", when)
    places = ["arm", "token", "when", "layer"]
    heads = table.group_by([*places, "seed"], use_threads=False).aggregate([("value", "mean")])
    by_layer: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    for row in heads.to_pylist():
        if is_finished(study, row["arm"], row["seed"]):
            layers = by_layer.setdefault((row["arm"], row["token"], row["when"]), {})
            layers.setdefault(row["layer"], []).append(row["value_mean"])
    return {
        place: {layer: math.fsum(found) / len(found) for layer, found in sorted(layers.items())}
        for place, layers in by_layer.items()
    }
