"""One function per figure of a study; each returns a plotly Figure and draws nothing itself.

An arm has the same colour in every figure, from a palette that colour-blind readers can tell apart
(Okabe and Ito 2008), and the same marker, for those who print in grey. Backgrounds are transparent
and text is INK, so that a page can recolour it for a dark screen. Text that comes from a study file
is escaped: plotly reads a subset of HTML.
"""

import html
import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ablations.spec import BASELINE, Hypothesis
from dashboards.tables.reading import StudyRun

INK = "#222222"
GRID = "rgba(128, 128, 128, 0.25)"
MUTED = "rgba(128, 128, 128, 0.9)"
PREDICTED = "rgba(0, 158, 115, 0.13)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

BASELINE_COLOUR = "#7f7f7f"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon")

LABEL_COLOURS = {
    "supported": "#009e73",
    "refuted": "#d55e00",
    "equivalent": "#0072b2",
    "inconclusive": "#7f7f7f",
    "failed": "#cc79a7",
}
LABEL_SYMBOLS = {
    "supported": "circle",
    "refuted": "diamond",
    "equivalent": "square",
    "inconclusive": "circle-open",
    "failed": "x",
}

UNITS = {"_s": "seconds", "_mib": "MiB", "_top1": "share"}
"""Units by the last letters of a metric's name."""

LINEAR_UP_TO = 8.0
"""Largest effect, in smallest effects of interest, that the forest shows on a linear axis."""


class ArmStyle(NamedTuple):
    """How an arm looks in every figure."""

    colour: str
    symbol: str


def arm_styles(arms: Iterable[str]) -> dict[str, ArmStyle]:
    """A colour and a marker for each arm: grey for the baseline, the palette for the others."""
    styles = {}
    others = [arm for arm in arms if arm != BASELINE]
    for number, arm in enumerate(others):
        turn, place = divmod(number, len(PALETTE))
        styles[arm] = ArmStyle(PALETTE[place], SYMBOLS[(place + turn) % len(SYMBOLS)])
    return {BASELINE: ArmStyle(BASELINE_COLOUR, "circle")} | styles


def sides_of(hypothesis: Mapping[str, Any]) -> tuple[str, str]:
    """In words, what a hypothesis compares and what with, as `verdicts.json` holds it."""
    return Hypothesis.model_validate_json(json.dumps(hypothesis)).sides


def compared(hypothesis: Mapping[str, Any]) -> str:
    """Both sides in one line."""
    arm, against = sides_of(hypothesis)
    return f"{arm} − {against}" if against else arm


def _ended(study: StudyRun, side: str, seed: int) -> str:
    """How the run of a side that is one arm ended; sides of several have only finished ones."""
    run = study.runs.get((side, seed))
    return "finished" if run is None else run.status


def metric_title(metric: str, *, minus_start: bool = False) -> str:
    """Axis title of a metric with its unit where it is known, in at most two lines."""
    unit = next((unit for end, unit in UNITS.items() if metric.endswith(end)), "")
    if metric.startswith("loss/"):
        unit = "nats"
    if metric.endswith("/gyration"):
        unit = "uniform = 1"
    title = html.escape(metric) + (f" ({unit})" if unit else "")
    return title + ("<br>minus step 0" if minus_start else "")


def verdict_intervals(verdicts: Mapping[str, Any]) -> go.Figure:
    """Forest of all hypotheses, arm minus against in smallest effects of interest.

    Four traces for each hypothesis: seeds, interval, the narrower interval of the equivalence
    test, mean. The dashed band is ± the smallest effect, the green one where the prediction lies.
    """
    figure = go.Figure()
    entries = list(verdicts["hypotheses"].items())
    if not entries:
        return _nothing("No hypotheses were declared.")
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
            figure.add_shape(
                type="rect",
                x0=low,
                x1=high,
                y0=y - 0.28,
                y1=y + 0.14,
                line_width=0,
                fillcolor=PREDICTED,
                layer="below",
            )
        for x, dash in ((-one, "dash"), (0.0, "solid"), (one, "dash")):
            figure.add_shape(
                type="line",
                x0=x,
                x1=x,
                y0=y - 0.28,
                y1=y + 0.14,
                line={"color": MUTED, "width": 1.2, "dash": dash},
                layer="below",
            )
        pairs = [pair for pair in verdict["pairs"] if pair["difference"] is not None]
        figure.add_scatter(
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
            figure.add_scatter(
                name=f"{name}: {part}",
                x=[place(end / scale) for end in ends],
                y=[y] * len(ends),
                mode="lines",
                line={"color": colour, "width": width},
                hoverinfo="skip",
            )
        mean = [] if verdict["mean"] is None else [verdict["mean"]]
        figure.add_scatter(
            name=f"{name}: mean",
            x=[place(value / scale) for value in mean],
            y=[y] * len(mean),
            mode="markers",
            marker={
                "color": colour,
                "size": 11,
                "symbol": LABEL_SYMBOLS[verdict["label"]],
                "line": {"width": 2 if verdict["label"] == "inconclusive" else 0, "color": colour},
            },
            customdata=[[value, html.escape(verdict["reason"])] for value in mean],
            hovertemplate="mean difference %{customdata[0]:.4g}<br>%{customdata[1]}<extra></extra>",
        )
        _write(
            figure,
            f"<b>{html.escape(name)}</b>",
            x=0,
            y=y + 0.46,
            xref="paper",
            xanchor="left",
        )
        change = ", minus step 0" if hypothesis["minus_start"] else ""
        _write(
            figure,
            f"{html.escape(compared(hypothesis))}, {html.escape(hypothesis['metric'])}"
            f"{change}: {hypothesis['direction']}, ±1 is {scale:g}",
            x=0,
            y=y + 0.28,
            xref="paper",
            xanchor="left",
            size=12,
        )
        tags = f" ({', '.join(verdict['tags'])})" if verdict["tags"] else ""
        _write(
            figure,
            f"<b>{verdict['label']}</b>{tags}",
            x=1,
            y=y + 0.46,
            xref="paper",
            xanchor="right",
            colour=colour,
        )
        if not mean:
            _write(figure, "no finished pair", x=0, y=y - 0.07, xanchor="left", xshift=8, size=12)
    note = " (compressed beyond ±1)" if stretched else ""
    figure.update_xaxes(
        title=f"mean difference, in smallest effects of interest{note}",
        range=[-edge, edge],
        ticks="outside",
        tickcolor=MUTED,
        showgrid=False,
    )
    if stretched:
        ticks = [t for t in _ticks() if abs(place(t)) <= edge]
        figure.update_xaxes(
            tickvals=[place(t) for t in ticks], ticktext=[f"{t:g}".replace("-", "−") for t in ticks]
        )
    figure.update_yaxes(visible=False, range=[0.65 - len(entries), 0.62])
    _dress(figure, height=70 + 112 * len(entries), left=24, right=24, top=10)
    return figure


def paired_seeds(study: StudyRun, verdicts: Mapping[str, Any]) -> go.Figure:
    """One panel per hypothesis: a line for each seed, from the arm compared with to the arm.

    Three traces for each hypothesis: lines, the values of each of the two arms. Values of runs that
    did not finish are crosses.
    """
    entries = list(verdicts["hypotheses"].items())
    if not entries:
        return _nothing("No hypotheses were declared.")
    styles = arm_styles(study.arms)
    columns = min(3, len(entries))
    rows = math.ceil(len(entries) / columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[_wrapped(name, 34) for name, _ in entries],
        horizontal_spacing=0.13 if columns > 1 else 0,
        vertical_spacing=0.3 / rows,
    )
    for number, (name, entry) in enumerate(entries):
        panel = {"row": number // columns + 1, "col": number % columns + 1}
        hypothesis = entry["hypothesis"]
        arm, against = sides_of(hypothesis)
        pairs = [pair for pair in entry["verdict"]["pairs"] if pair["difference"] is not None]
        figure.add_scatter(
            name=f"{name}: pairs",
            x=[x for _ in pairs for x in (0, 1, None)],
            y=[y for pair in pairs for y in (pair["against"], pair["arm"], None)],
            mode="lines",
            line={"color": MUTED, "width": 1.2},
            hoverinfo="skip",
            **panel,
        )
        for x, who, key in ((0, against, "against"), (1, arm, "arm")):
            shown = [pair for pair in entry["verdict"]["pairs"] if pair[key] is not None]
            ended = [_ended(study, who, pair["seed"]) for pair in shown]
            style = styles.get(who, ArmStyle(MUTED, "circle"))
            figure.add_scatter(
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
                **panel,
            )
        figure.update_xaxes(
            tickvals=[0, 1],
            ticktext=[_wrapped(against, 18), _wrapped(arm, 18)],
            range=[-0.35, 1.35],
            showgrid=False,
            **panel,
        )
        figure.update_yaxes(
            title=metric_title(hypothesis["metric"], minus_start=hypothesis["minus_start"]), **panel
        )
        if not pairs:
            _write_in_panel(figure, "no pair of values", number)
    _dress(figure, height=60 + 330 * rows, left=20, right=20, top=50)
    return figure


def learning_curves(study: StudyRun) -> go.Figure:
    """k-NN accuracy of [CLS] and training loss over steps, by arm.

    For each of the two panels: two traces for each arm (every seed thin; thick the mean over its
    finished seeds or, before one has finished, over all as far as all of them go), and one of
    crosses where runs stand or ended that did not finish.
    """
    panels = {
        "knn/cls_top1": "k-NN accuracy of [CLS]<br>(share of held-out images)",
        "loss/total": "training loss (nats)",
    }
    height = max(300, 60 + 22 * len(study.arms))
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for row, (metric, title) in enumerate(panels.items(), start=1):
        _curves(figure, study, metric, row=row, column=1, height=height, number=row - 1)
        figure.update_yaxes(title=title, row=row, col=1)
    figure.update_xaxes(title="step", row=2, col=1)
    _dress(figure, height=80 + 2 * height, left=20, right=_room(study.arms), top=20)
    return figure


def globality_by_layer(study: StudyRun) -> go.Figure:
    """Gyration of the attention of [CLS] and of patches by layer, one panel per arm.

    Four traces for each arm: [CLS] and patch, each at step 0 (dashed) and at the end (solid), means
    over heads and over finished seeds. 1 is the gyration of uniform attention.
    """
    table = _by_layer(study)
    if table.empty:
        return _nothing("Globality by layer was not measured yet.")
    arms, styles = study.arms, arm_styles(study.arms)
    columns = min(3, len(arms))
    rows = math.ceil(len(arms) / columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes=True,
        subplot_titles=[f"<b>{_wrapped(arm, 30)}</b>" for arm in arms],
        horizontal_spacing=0.04 if columns > 1 else 0,
        vertical_spacing=0.28 / rows,
    )
    last = int(table["layer"].max())
    low, high = min(float(table["value"].min()), 1.0), max(float(table["value"].max()), 1.0)
    gap = 0.08 * (high - low or 1.0)
    figure.update_yaxes(range=[low - gap, high + gap])
    for number, arm in enumerate(arms):
        panel = {"row": number // columns + 1, "col": number % columns + 1}
        names: dict[str, float] = {}
        for token, name, symbol in (("cls", "[CLS]", "circle"), ("patch", "patch", "square-open")):
            for when, dash, opacity in (("start", "dot", 0.7), ("end", "solid", 1.0)):
                line = table[
                    (table["arm"] == arm) & (table["token"] == token) & (table["when"] == when)
                ]
                figure.add_scatter(
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
                    **panel,
                )
                if when == "end" and not line.empty:
                    names[name] = float(line["value"].iloc[-1])
        if not names:
            _write_in_panel(figure, "no finished run", number)
        for name, y in _spread(names, 0.9 * gap, low=low - gap, high=high + gap).items():
            _write(
                figure,
                name,
                x=last + 0.15,
                y=y,
                xanchor="left",
                colour=styles[arm].colour,
                size=12,
                **_axes(number),
            )
        figure.update_xaxes(
            title="layer",
            tickvals=_whole_ticks(last),
            range=[0.7, last + 0.12 * last + 0.55],
            **panel,
        )
        figure.add_hline(y=1.0, line={"color": MUTED, "width": 1}, layer="below", **panel)
    figure.update_yaxes(title="gyration (uniform = 1)", col=1)
    _dress(figure, height=70 + 320 * rows, left=20, right=20, top=50)
    return figure


def collapse_panel(study: StudyRun) -> go.Figure:
    """Every collapse diagnostic over steps, one panel each, traces as in learning_curves."""
    metrics = collapse_metrics(study)
    if not metrics:
        return _nothing("Collapse diagnostics were not measured yet.")
    height = max(220, 40 + 20 * len(study.arms))
    figure = make_subplots(
        rows=len(metrics),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.16 / len(metrics),
        subplot_titles=[html.escape(metric) for metric in metrics],
    )
    for number, metric in enumerate(metrics):
        _curves(figure, study, metric, row=number + 1, column=1, height=height, number=number)
        figure.update_yaxes(title=metric_title(metric.partition("/")[2]), row=number + 1, col=1)
    figure.update_xaxes(title="step", row=len(metrics), col=1)
    _dress(figure, height=90 + height * len(metrics), left=20, right=_room(study.arms), top=40)
    return figure


def every_figure(study: StudyRun, verdicts: Mapping[str, Any]) -> dict[str, go.Figure]:
    """All figures by name, in the order in which a report shows them."""
    return {
        "verdict_intervals": verdict_intervals(verdicts),
        "paired_seeds": paired_seeds(study, verdicts),
        "learning_curves": learning_curves(study),
        "globality_by_layer": globality_by_layer(study),
        "collapse_panel": collapse_panel(study),
    }


def collapse_metrics(study: StudyRun) -> list[str]:
    """Names of the recorded collapse diagnostics, sorted."""
    names = study.table.loc[study.table["layer"].isna(), "metric"].unique()
    return sorted(str(name) for name in names if str(name).startswith("collapse/"))


def _curves(
    figure: go.Figure,
    study: StudyRun,
    metric: str,
    *,
    row: int,
    column: int,
    height: int,
    number: int,
) -> None:
    """Draws `metric` over steps by arm into one panel, with the arms' names at its right edge."""
    table = study.table[(study.table["metric"] == metric) & study.table["layer"].isna()]
    styles = arm_styles(study.arms)
    names: dict[str, float] = {}
    ended: list[tuple[int, float, str, str]] = []
    inner: list[float] = []
    for arm in study.arms:
        own = table[table["arm"] == arm].set_index("step")
        by_seed = {
            seed: line
            for seed in study.seeds
            if not (line := own.loc[own["seed"] == seed, "value"]).empty
        }
        thin_x: list[int | None] = []
        thin_y: list[float | None] = []
        for seed, line in by_seed.items():
            thin_x += [*line.index.tolist(), None]
            thin_y += [*line.tolist(), None]
            finite = line[line.abs() < math.inf]
            if _is_finished(study, arm, seed):
                inner += finite.tolist()
            elif not finite.empty:
                text = f"{html.escape(arm)}, seed {seed}: {study.runs[arm, seed].status}"
                ended.append((finite.index[-1], finite.iloc[-1], text, styles[arm].colour))
        finished = {s: line for s, line in by_seed.items() if _is_finished(study, arm, s)}
        meant = finished or by_seed
        mean = pd.DataFrame(meant).dropna().mean(axis=1) if meant else pd.Series(dtype=float)
        if not mean.empty and math.isfinite(mean.iloc[-1]):
            names[arm] = float(mean.iloc[-1])
        style = styles[arm]
        figure.add_scatter(
            name=f"{arm}: seeds",
            x=thin_x,
            y=thin_y,
            mode="lines",
            opacity=0.35,
            line={"color": style.colour, "width": 1},
            hoverinfo="skip",
            row=row,
            col=column,
        )
        figure.add_scatter(
            name=f"{arm}: mean",
            x=mean.index.tolist(),
            y=mean.tolist(),
            mode="lines+markers" if len(mean) <= 12 else "lines",
            line={"color": style.colour, "width": 2.5},
            marker={"symbol": style.symbol, "size": 8},
            hovertemplate=f"{html.escape(arm)}, step %{{x}}: %{{y:.4g}}"
            f"<extra>mean of {len(meant)} seeds</extra>",
            row=row,
            col=column,
        )
    figure.add_scatter(
        name="ended without finishing",
        x=[x for x, _, _, _ in ended],
        y=[y for _, y, _, _ in ended],
        mode="markers",
        marker={"symbol": "x", "size": 9, "color": [colour for _, _, _, colour in ended]},
        customdata=[[text] for _, _, text, _ in ended],
        hovertemplate="%{customdata[0]}<extra></extra>",
        row=row,
        col=column,
    )
    steps = max([int(study.lock["config"].get("steps", 1)), *table["step"]])
    figure.update_xaxes(range=[-0.03 * steps, 1.03 * steps], row=row, col=column)
    values = inner or [value for value in table["value"] if math.isfinite(value)]
    if not values:
        _write_in_panel(figure, f"{html.escape(metric)} was not measured yet", number)
        return
    low, high = min(values), max(values)
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    figure.update_yaxes(range=[low - pad, high + pad], row=row, col=column)
    names = {arm: min(max(y, low - pad), high + pad) for arm, y in names.items()}
    axes = _axes(number)
    gap = 18 * (high - low + 2 * pad) / height
    for arm, y in _spread(names, gap, low=low - pad, high=high + pad).items():
        _write(
            figure,
            html.escape(arm),
            x=1.01,
            y=y,
            xanchor="left",
            colour=styles[arm].colour,
            size=12,
            xref=f"{axes['xref']} domain",
            yref=axes["yref"],
        )


def _is_finished(study: StudyRun, arm: str, seed: int) -> bool:
    return study.runs[arm, seed].status == "finished"


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
    chosen = chosen[[_is_finished(study, arm, seed) for arm, seed in places]]
    columns = ["arm", "token", "when", "layer"]
    if chosen.empty:
        return pd.DataFrame(columns=[*columns, "value"])
    final = chosen.groupby(["arm", "seed"])["step"].transform("max")
    first = chosen[chosen["step"] == 0].assign(when="start")
    last = chosen[(chosen["step"] == final) & (chosen["step"] > 0)].assign(when="end")
    both = pd.concat([first, last])
    per_seed = both.groupby([*columns, "seed"])["value"].mean().reset_index()
    return per_seed.groupby(columns)["value"].mean().reset_index()


def _effects(entry: Mapping[str, Any]) -> list[float]:
    """Everything a row of the forest shows, in smallest effects of interest."""
    verdict = entry["verdict"]
    shown = [pair["difference"] for pair in verdict["pairs"] if pair["difference"] is not None]
    shown += [end for key in ("interval", "interval_equivalence") for end in verdict[key] or []]
    return [value / entry["hypothesis"]["smallest_effect"] for value in shown]


def _ticks() -> list[float]:
    """Round numbers of both signs: 0, 1, 3, 10, 30, and so on."""
    sizes = [size * 10.0**power for power in range(13) for size in (1, 3)]
    return [*(-size for size in reversed(sizes)), 0.0, *sizes]


def _whole_ticks(last: int) -> list[int]:
    """At most about ten layers, counted from 1."""
    return list(range(1, last + 1, math.ceil(last / 10)))


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


def _wrapped(text: str, width: int) -> str:
    """Escaped text in lines of at most `width` letters; also breaks after underscores."""
    spaced = text.replace("_", "_ ")
    lines = [line.replace("_ ", "_") for line in textwrap.wrap(spaced, width)]
    return "<br>".join(html.escape(line) for line in lines)


def _axes(number: int) -> dict[str, Any]:
    """Plotly's names for the axes of panel `number`, counted from 0 in rows."""
    suffix = "" if number == 0 else str(number + 1)
    return {"xref": f"x{suffix}", "yref": f"y{suffix}"}


def _room(names: Iterable[str]) -> int:
    """Pixels that the longest name needs at the right edge."""
    return 24 + 7 * max(map(len, names), default=0)


def _write(
    figure: go.Figure, text: str, *, colour: str = INK, size: int = 13, **place: Any
) -> None:
    """Adds text without an arrow; `place` is that of a plotly annotation."""
    figure.add_annotation(
        text=text,
        showarrow=False,
        font={"color": colour, "size": size},
        yanchor=place.pop("yanchor", "middle"),
        **place,
    )


def _write_in_panel(figure: go.Figure, text: str, number: int) -> None:
    """Says why a panel is empty, without the numbers plotly makes up for an axis of its own."""
    place: dict[str, Any] = {key: f"{axis} domain" for key, axis in _axes(number).items()}
    _write(figure, text, x=0.5, y=0.5, xanchor="center", **place)
    axis = figure.layout[_axes(number)["yref"].replace("y", "yaxis")]
    if axis.range is None:
        axis.update(showticklabels=False, showgrid=False)


def _nothing(text: str) -> go.Figure:
    """A figure that says why it is empty."""
    figure = go.Figure()
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    _write(figure, text, x=0.5, y=0.5, xref="paper", yref="paper", xanchor="center")
    _dress(figure, height=140, left=20, right=20, top=20)
    return figure


def _dress(figure: go.Figure, *, height: int, left: int, right: int, top: int) -> None:
    """What all figures share: size, font, transparent ground, quiet grid, no legend."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": left, "r": right, "t": top, "b": 50},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"family": FONT, "size": 13, "color": INK},
        showlegend=False,
        hovermode="closest",
    )
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(
            gridcolor=GRID,
            linecolor=MUTED,
            automargin=True,
            zeroline=False,
            title_standoff=10,
            title_font_size=13,
            tickfont_size=12,
        )
    figure.update_annotations(font_family=FONT)
    figure.for_each_annotation(_shrink)


def _shrink(annotation: go.layout.Annotation) -> None:
    """Titles of panels in the size of other text; plotly makes them larger."""
    annotation.font.size = min(annotation.font.size, 14)
