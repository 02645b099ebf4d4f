"""What all figures of a study share: colours, markers, words, panels.

An arm has the same colour in every figure, from a palette that colour-blind readers can tell apart
(Okabe and Ito 2008, with a grey and a brown in place of black and yellow, which do not show on
every ground), and the same marker, for those who print in grey. Backgrounds are transparent
and text is INK, so that a page can recolour it for a dark screen. Text that comes from a study file
is escaped: plotly reads a subset of HTML.
"""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ablations.spec import BASELINE
from dashboards.names import in_lines

INK = "#222222"

GRID = "rgba(128, 128, 128, 0.25)"

MUTED = "rgba(128, 128, 128, 0.9)"

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

BASELINE_COLOUR = "#707070"

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#88402b")

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon")

GLYPHS = dict(zip(SYMBOLS, "●■◆▲▼⬟⬢", strict=True))

LABEL_COLOURS = {
    "supported": "#009e73",
    "refuted": "#d55e00",
    "equivalent": "#0072b2",
    "insensitive": "#88402b",
    "inconclusive": "#707070",
    "failed": "#cc79a7",
}

LONGEST_NAME = 48
"""Letters of a name at the edge of a panel."""

LONGEST_TITLE = 32
"""Letters of a line of an axis title: those of two panels do not meet."""

UNITS = {"_s": "seconds", "_mib": "MiB", "_top1": "share"}
"""Units by the last letters of a metric's name."""


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


def metric_title(metric: str, *, minus_start: bool = False) -> str:
    """Axis title of a metric with its unit where it is known; a long one breaks after slashes."""
    unit = next((unit for end, unit in UNITS.items() if metric.endswith(end)), "")
    if metric.startswith("loss/"):
        unit = "nats"
    if metric.endswith("/gyration"):
        unit = "uniform = 1"
    title = wrapped(metric, LONGEST_TITLE) + (f" ({unit})" if unit else "")
    return title + ("<br>minus step 0" if minus_start else "")


def whole_ticks(last: int) -> list[int]:
    """At most about ten layers, counted from 1."""
    return list(range(1, last + 1, math.ceil(last / 10)))


def wrapped(text: str, width: int) -> str:
    """Escaped text in at most 4 lines of `width` letters, also broken after slashes, underscores.

    Plotly finds no room for panels whose words take all of it.
    """
    return "<br>".join(html.escape(line) for line in in_lines(text, width))


def shortened(name: str) -> str:
    """Escaped name of which LONGEST_NAME letters are left."""
    kept = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return html.escape(" ".join(kept.split()))


def marked(name: str, style: ArmStyle) -> str:
    """The shortened name after the marker of its arm, which alone has its colour.

    Letters of these colours cannot be read on every ground.
    """
    return f'<span style="color: {style.colour}">{GLYPHS[style.symbol]}</span> {shortened(name)}'


def axes_of(number: int) -> dict[str, Any]:
    """Plotly's names for the axes of panel `number`, counted from 0 in rows."""
    return {"xref": f"x{_suffix(number)}", "yref": f"y{_suffix(number)}"}


def _suffix(number: int) -> str:
    return "" if number == 0 else str(number + 1)


def panels(titles: Sequence[str], most: int = 3) -> tuple[go.Figure, int]:
    """A figure with a panel for each of these titles, wrapped, at most so many beside each other;
    and how many rows it has."""
    columns = min(most, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=titles,
        horizontal_spacing=0.13 if columns > 1 else 0,
        vertical_spacing=0.3 / rows,
    )
    return figure, rows


def room_for(names: Iterable[str]) -> int:
    """Pixels that the longest name, shortened, needs at the right edge."""
    return 40 + 7 * min(LONGEST_NAME, max(map(len, names), default=0))


class Drawing:
    """Axes, traces, shapes and texts of a figure, which plotly gets all at once.

    Plotly checks all that a figure has for each change of it. `figure` has the panels.
    """

    def __init__(self, figure: go.Figure) -> None:
        self._layout: dict[str, Any] = figure.layout.to_plotly_json()
        self._traces: list[dict[str, Any]] = []
        self._shapes: list[dict[str, Any]] = []
        self._texts: list[dict[str, Any]] = []

    def axis(self, letter: str, number: int = 0, *, title: str = "", **values: Any) -> None:
        """Gives the x or y axis of panel `number` a title, if there is one, and other values."""
        axis = self._layout.setdefault(f"{letter}axis{_suffix(number)}", {})
        axis.update(values)
        if title:
            axis["title"] = {"text": title}

    def scatter(self, *, number: int = 0, **trace: Any) -> None:
        """Adds a scatter trace to panel `number`."""
        axes = {"xaxis": f"x{_suffix(number)}", "yaxis": f"y{_suffix(number)}"}
        self._traces.append({"type": "scatter", **trace, **axes})

    def shape(self, **shape: Any) -> None:
        """Adds a shape below the traces."""
        self._shapes.append({**shape, "layer": "below"})

    def text(self, text: str, *, colour: str = INK, size: int = 13, **place: Any) -> None:
        """Adds text without an arrow; `place` is that of a plotly annotation."""
        font = {"color": colour, "size": size}
        self._texts.append(
            {"text": text, "showarrow": False, "font": font, "yanchor": "middle", **place}
        )

    def text_in_panel(self, text: str, number: int) -> None:
        """Says why a panel is empty, without the numbers plotly makes up for an axis of its own."""
        place: dict[str, Any] = {key: f"{axis} domain" for key, axis in axes_of(number).items()}
        self.text(text, x=0.5, y=0.5, xanchor="center", **place)
        if "range" not in self._layout[f"yaxis{_suffix(number)}"]:
            self.axis("y", number, showticklabels=False, showgrid=False)

    def finish(self, *, height: int, left: int, right: int, top: int) -> go.Figure:
        """The figure, with what all share: font, transparent ground, quiet grid, no legend."""
        for name, axis in self._layout.items():
            if name.startswith(("xaxis", "yaxis")):
                axis |= {
                    "gridcolor": GRID,
                    "linecolor": MUTED,
                    "automargin": True,
                    "zeroline": False,
                    "tickfont": {"size": 12},
                }
                axis["title"] = axis.get("title", {}) | {"standoff": 10, "font": {"size": 13}}
        # Titles of panels in the size of other text; plotly makes them larger.
        titles = self._layout.get("annotations", [])
        for text in [*titles, *self._texts]:
            text["font"] |= {"family": FONT, "size": min(text["font"]["size"], 14)}
        layout = {
            **self._layout,
            "annotations": [*titles, *self._texts],
            "shapes": self._shapes,
            "template": "none",
            "height": height,
            "margin": {"l": left, "r": right, "t": top, "b": 50},
            "paper_bgcolor": "rgba(0, 0, 0, 0)",
            "plot_bgcolor": "rgba(0, 0, 0, 0)",
            "font": {"family": FONT, "size": 13, "color": INK},
            "showlegend": False,
            "hovermode": "closest",
        }
        return go.Figure(self._traces, layout)


def empty_figure(text: str) -> go.Figure:
    """A figure that says why it is empty."""
    drawing = Drawing(go.Figure())
    drawing.axis("x", visible=False)
    drawing.axis("y", visible=False)
    drawing.text(text, x=0.5, y=0.5, xref="paper", yref="paper", xanchor="center")
    return drawing.finish(height=140, left=20, right=20, top=20)
