"""Rows of a forest as SVG, which needs no script: prediction, seeds, intervals, mean."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ablations.spec import Direction
from ablations.statistics.effect_sizes import Interval
from dashboards.figures.forest import LABEL_SYMBOLS, LINEAR_UP_TO, PREDICTED, round_numbers
from dashboards.figures.style import FONT, LABEL_COLOURS, MUTED

SHAPES = {
    "circle": "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "square": "m-5 -5h10v10h-10z",
    "diamond": "m0 -6l6 6l-6 6l-6 -6z",
    "x": "m-5 -5l10 10m0 -10l-10 10",
}
"""Paths of markers of 10 pixels, around the point where they begin."""

STYLE = {"shapes": SHAPES, "shade": PREDICTED, "muted": MUTED, "font": FONT}
"""What the templates of rows are given."""

WIDTH = 360
"""pixels of a row, before it is scaled"""

_APART = 30
"""least pixels between the middles of numbers of an axis"""

_CHARACTER = 7.5
"""pixels of a character of these numbers, and no less"""


class Scale(NamedTuple):
    """Where an effect is drawn, in pixels from the left; beyond 1 compressed if `stretched`."""

    edge: float
    """the largest effect that has room, in smallest effects"""
    stretched: bool = False

    def __call__(self, effect: float) -> float:
        """Pixels, rounded to a tenth."""
        place = math.asinh if self.stretched else float
        return round(WIDTH / 2 * (1 + place(effect) / place(self.edge)), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Pixels and text of the numbers under an axis, far enough apart to be read."""
        sizes = round_numbers() if self.stretched else map(float, range(math.ceil(self.edge)))
        kept = [0.0]
        for size in sizes:
            half = _CHARACTER * len(f"{-size:g}") / 2
            apart = max(_APART, half + _CHARACTER * (len(f"{-kept[-1]:g}") / 2 + 1))
            if self(kept[-1]) + apart <= self(size) <= WIDTH - half:
                kept = [-size, *kept, size]
        return [(self(x), f"{x:g}".replace("-", "−")) for x in kept]


class Row(NamedTuple):
    """What is drawn of a hypothesis, or of its control, in smallest effects."""

    seeds: Sequence[tuple[float, str]]
    """differences, and what is said of each"""
    mean: float | None
    intervals: Sequence[tuple[Interval, int]]
    """each with the width of its line"""
    predicted: Direction | None = None
    colour: str = MUTED
    symbol: str = "circle"

    def bands(self, scale: Scale) -> Sequence[tuple[float, float]]:
        """Left and right ends of where the prediction lies, in pixels."""
        edge = scale.edge
        ends = {
            "rises": [(1.0, edge)],
            "falls": [(-edge, -1.0)],
            "differs": [(-edge, -1.0), (1.0, edge)],
            "holds": [(-1.0, 1.0)],
        }
        predicted = ends[self.predicted] if self.predicted else []
        return [(scale(low), scale(high)) for low, high in predicted]


def row_of(
    label: str,
    direction: Direction,
    seeds: Sequence[tuple[float, str]],
    mean: float | None,
    interval: Interval | None,
    interval_equivalence: Interval | None,
) -> Row:
    """The row of a hypothesis that has this label; all numbers are in smallest effects."""
    intervals = [(interval, 2), (interval_equivalence, 6)]
    return Row(
        seeds=seeds,
        mean=mean,
        intervals=[(ends, width) for ends, width in intervals if ends is not None],
        predicted=direction,
        colour=LABEL_COLOURS[label],
        symbol=LABEL_SYMBOLS[label],
    )


def scale_for(rows: Sequence[Row]) -> Scale:
    """A scale on which all `rows` have room."""
    effects = [abs(x) for row in rows for x, _ in row.seeds]
    effects += [abs(x) for row in rows for ends, _ in row.intervals for x in ends]
    largest = max(effects, default=0.0)
    if largest > LINEAR_UP_TO:
        return Scale(math.sinh(1.08 * math.asinh(largest)), stretched=True)
    return Scale(1.1 * max(largest, 2.0))
