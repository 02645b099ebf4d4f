"""Metrics over steps: learning curves and the collapse panel."""

import functools
import html
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.compute as pc
from plotly.subplots import make_subplots

from dashboards.figures.compared import is_finished
from dashboards.figures.style import (
    Drawing,
    arm_styles,
    axes_of,
    empty_figure,
    marked,
    metric_title,
    room_for,
)
from dashboards.tables.reading import COLLAPSE, CURVES, StudyRun

Line = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Steps, ascending, and the values there."""


TITLES = {
    "knn/cls_top1": "k-NN accuracy of [CLS]<br>(share of held-out images)",
    "loss/total": "training loss (nats)",
}


def learning_curves(study: StudyRun, metrics: Sequence[str] = CURVES) -> go.Figure:
    """k-NN accuracy of [CLS] and training loss over steps, by arm; or only some of them.

    For each of these panels: two traces for each arm (every seed thin; thick the mean over its
    finished seeds or, before one has finished, over all as far as all of them go), and one of
    crosses where runs stand or ended that did not finish.
    """
    height = curve_height(study)
    figure = make_subplots(rows=len(metrics), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    drawing = Drawing(figure)
    for number, metric in enumerate(metrics):
        _curves(drawing, study, metric, height=height, number=number)
        drawing.axis("y", number, title=TITLES[metric])
    drawing.axis("x", len(metrics) - 1, title="step")
    return drawing.finish(
        height=80 + len(metrics) * height, left=20, right=room_for(study.arms), top=20
    )


def curve_height(study: StudyRun) -> int:
    """Pixels of a panel that has room for the names of all arms."""
    return max(300, 60 + 22 * len(study.arms))


def collapse_height(study: StudyRun) -> int:
    """The same of the collapse panel."""
    return max(220, 40 + 20 * len(study.arms))


def collapse_panel(study: StudyRun, metrics: Sequence[str] | None = None) -> go.Figure:
    """Collapse diagnostics (every one unless `metrics` are named) over steps, one panel each.

    Traces are as in learning_curves.
    """
    metrics = collapse_metrics(study) if metrics is None else metrics
    if not metrics:
        return empty_figure("Collapse diagnostics were not measured yet.")
    height = collapse_height(study)
    figure = make_subplots(
        rows=len(metrics),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.16 / len(metrics),
        subplot_titles=[html.escape(metric) for metric in metrics],
    )
    drawing = Drawing(figure)
    for number, metric in enumerate(metrics):
        _curves(drawing, study, metric, height=height, number=number)
        drawing.axis("y", number, title=metric_title(metric.partition("/")[2]))
    drawing.axis("x", len(metrics) - 1, title="step")
    return drawing.finish(
        height=90 + height * len(metrics), left=20, right=room_for(study.arms), top=40
    )


def collapse_metrics(study: StudyRun) -> list[str]:
    """Names of the recorded collapse diagnostics, sorted."""
    names = pc.unique(study.table["metric"].filter(pc.is_null(study.table["layer"]))).to_pylist()
    return sorted(name for name in names if name.startswith(COLLAPSE))


def _curves(drawing: Drawing, study: StudyRun, metric: str, *, height: int, number: int) -> None:
    """Draws `metric` over steps by arm into one panel, with the arms' names at its right edge."""
    lines = _lines(study, metric)
    styles = arm_styles(study.arms)
    names: dict[str, float] = {}
    ended: list[tuple[int, float, str, str]] = []
    inner: list[float] = []
    for place, arm in enumerate(study.arms, 1):
        by_seed = {seed: lines[arm, seed] for seed in study.seeds if (arm, seed) in lines}
        thin_x: list[int | None] = []
        thin_y: list[float | None] = []
        for seed, (steps, values) in by_seed.items():
            thin_x += [*steps.tolist(), None]
            thin_y += [*values.tolist(), None]
            finite = np.isfinite(values)
            if is_finished(study, arm, seed):
                inner += values[finite].tolist()
            elif finite.any():
                text = f"{html.escape(arm)}, seed {seed}: {study.runs[arm, seed].status}"
                last = (int(steps[finite][-1]), float(values[finite][-1]))
                ended.append((*last, text, styles[arm].colour))
        (mean_x, mean_y), seeds = _meant(study, arm, by_seed)
        if len(mean_y) and math.isfinite(mean_y[-1]):
            names[arm] = float(mean_y[-1])
        style = styles[arm]
        drawing.scatter(
            name=f"{arm}: seeds",
            meta=place,
            x=thin_x,
            y=thin_y,
            mode="lines",
            opacity=0.35,
            line={"color": style.colour, "width": 1},
            hoverinfo="skip",
            number=number,
        )
        drawing.scatter(
            name=f"{arm}: mean",
            meta=place,
            x=mean_x.tolist(),
            y=mean_y.tolist(),
            mode="lines+markers" if len(mean_x) <= 12 else "lines",
            line={"color": style.colour, "width": 2.5},
            marker={"symbol": style.symbol, "size": 8},
            hovertemplate=f"{html.escape(arm)}, step %{{x}}: %{{y:.4g}}"
            f"<extra>mean of {seeds} seeds</extra>",
            number=number,
        )
    drawing.scatter(
        name="ended without finishing",
        x=[x for x, _, _, _ in ended],
        y=[y for _, y, _, _ in ended],
        mode="markers",
        marker={"symbol": "x", "size": 9, "color": [colour for _, _, _, colour in ended]},
        customdata=[[text] for _, _, text, _ in ended],
        hovertemplate="%{customdata[0]}<extra></extra>",
        number=number,
    )
    planned = study.entry.config.get("steps")
    # In epochs it says nothing of the axis.
    longest = max(
        [planned if isinstance(planned, int) else 1, *(int(x[-1]) for x, _ in lines.values())]
    )
    drawing.axis("x", number, range=[-0.03 * longest, 1.03 * longest])
    shown = inner or [
        y for _, values in lines.values() for y in values.tolist() if math.isfinite(y)
    ]
    if not shown:
        drawing.text_in_panel(f"{html.escape(metric)} was not measured yet", number)
        return
    low, high = min(shown), max(shown)
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    drawing.axis("y", number, range=[low - pad, high + pad])
    names = {arm: min(max(y, low - pad), high + pad) for arm, y in names.items()}
    axes = axes_of(number)
    gap = 18 * (high - low + 2 * pad) / height
    for arm, y in _spread(names, gap, low=low - pad, high=high + pad).items():
        drawing.text(
            marked(arm, styles[arm]),
            name=str(study.arms.index(arm) + 1),
            x=1.01,
            y=y,
            xanchor="left",
            size=12,
            xref=f"{axes['xref']} domain",
            yref=axes["yref"],
        )


def mean_curves(study: StudyRun, metric: str) -> dict[str, tuple[Line, int]]:
    """The thick line of each arm that has one, and of how many seeds it is the mean."""
    lines = _lines(study, metric)
    by_arm = {
        arm: {seed: lines[arm, seed] for seed in study.seeds if (arm, seed) in lines}
        for arm in study.arms
    }
    return {arm: _meant(study, arm, by_seed) for arm, by_seed in by_arm.items() if by_seed}


def _meant(study: StudyRun, arm: str, by_seed: Mapping[int, Line]) -> tuple[Line, int]:
    """The mean over finished seeds, over all before one has finished; and their number."""
    finished = [line for seed, line in by_seed.items() if is_finished(study, arm, seed)]
    meant = finished or list(by_seed.values())
    return _mean_line(meant), len(meant)


def _lines(study: StudyRun, metric: str) -> dict[tuple[str, int], Line]:
    """The values of a metric over steps, of each run that has any."""
    table = study.table
    own = pc.and_(pc.equal(table["metric"], metric), pc.is_null(table["layer"]))
    table = table.filter(own)
    arms = pc.index_in(table["arm"], pa.array(study.arms, pa.string())).to_numpy()
    seeds, steps, values = (table[name].to_numpy() for name in ("seed", "step", "value"))
    # Rows of one run stand together.
    starts = np.flatnonzero(np.diff(arms, prepend=-1) | np.diff(seeds, prepend=-1))
    return {
        (study.arms[arms[start]], int(seeds[start])): (steps[start:end], values[start:end])
        for start, end in zip(starts, np.append(starts, len(arms))[1:], strict=True)
    }


def _mean_line(lines: Sequence[Line]) -> Line:
    """The mean of several lines, at the steps at which all have a number."""
    if not lines:
        return np.empty(0, np.int64), np.empty(0)
    present = [steps[~np.isnan(values)] for steps, values in lines]
    common = functools.reduce(np.intersect1d, present)
    return common, np.mean([values[np.isin(steps, common)] for steps, values in lines], axis=0)


def _spread(
    places: Mapping[str, float], gap: float, *, low: float, high: float
) -> dict[str, float]:
    """`places` moved as little as it takes (least squares) for no two to be closer than `gap`.

    Then moved into [low, high], as far as there is room: plotly does not show text outside a panel.
    """
    order = sorted(places, key=lambda name: (places[name], name))
    blocks: list[list[float]] = []
    for number, name in enumerate(order):
        blocks.append([places[name] - number * gap])
        while len(blocks) > 1 and _mean(blocks[-2]) > _mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    apart = [_mean(block) for block in blocks for _ in block]
    moved: dict[str, float] = {}
    for number, name in enumerate(order):
        moved[name] = max(apart[number], low) + number * gap
    for number, name in enumerate(reversed(order)):
        moved[name] = max(low, min(moved[name], high - number * gap))
    return moved


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
