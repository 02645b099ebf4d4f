"""Maps over the same images, side by side in columns, and as one drawing that a paper takes."""

import io
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dashboards.figures import tiles
from dashboards.figures.canvas import INK, QUIET
from dashboards.figures.tiles import Map, Pixels
from dashboards.names import in_lines
from trainers.errors import printable

DOTS = 200
"""per inch: a tile has a pixel of the drawing for each of its own"""

_SIDE, _GAP = 128, 6
"""pixels of a tile, and between two"""

_LINE = 8
"""Columns in a line of a drawing, beside the images themselves."""

_LETTER = 0.1
"""inches from a line of names to the next"""

_UNDATED = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}

_WIDE = 0.075
"""inches that a letter above all columns may take"""

_LETTERS = 14
"""of a name above a column, in a line"""


class Column(NamedTuple):
    """What is under one name."""

    name: str
    arm: str
    at: str
    """when in its run, in words; empty where there is no map"""
    maps: Sequence[Map]
    """of the first images; empty where there is none"""
    note: str = ""
    """how its run ended, or why there is no map"""


class Band(NamedTuple):
    """Columns that stand together, under a name if they have one."""

    name: str
    columns: Sequence[Column]


class Sheet(NamedTuple):
    """Rows are images, columns what is compared."""

    title: str
    caption: str
    pixels: Sequence[Pixels]
    """[S, S, 3] of each"""
    bands: Sequence[Band]
    above: Sequence[str] = ()
    """what a drawing says above all columns, each from a line of its own"""


def drawn(sheet: Sheet) -> Figure:
    """The sheet on a white ground, at most _LINE columns in a line, the images before each."""
    lines = [
        (band.name if start == 0 else "", band.columns[start : start + _LINE])
        for band in sheet.bands
        for start in range(0, len(band.columns), _LINE)
    ]
    step = (_SIDE + _GAP) / DOTS
    width = step * (1 + max(len(columns) for _, columns in lines))
    below = step * len(sheet.pixels)
    above = [_LETTER * (0.5 + _tallest(columns) + 2 * bool(name)) for name, columns in lines]
    head = [
        line for said in sheet.above for line in in_lines(printable(said), int(width / _WIDE), 16)
    ]
    top = height = 1.5 * _LETTER * len(head) + sum(above) + below * len(lines)
    figure = Figure(figsize=(width, height), dpi=DOTS)
    FigureCanvasAgg(figure)
    figure.set_facecolor("white")
    for line in head:
        top -= 1.5 * _LETTER
        figure.text(0, top / height, line, fontsize=7, color=INK, parse_math=False)
    for (name, columns), names in zip(lines, above, strict=True):
        if name:
            words = "".join(in_lines(printable(name), 60, 1))
            figure.text(
                0, (top - 1.6 * _LETTER) / height, words, fontsize=8, color=QUIET, parse_math=False
            )
        top -= names + below
        array = tiles.sheet(_rows(sheet.pixels, columns), _GAP)
        place = figure.add_axes(
            (0, top / height, array.shape[1] / DOTS / width, array.shape[0] / DOTS / height)
        )
        place.set_axis_off()
        place.imshow(array, interpolation="nearest", aspect="auto")
        for number, title in enumerate((["image"], *map(_title, columns))):
            figure.text(
                number * step / width, (top + below) / height, "\n".join(title), va="bottom",
                fontsize=6, linespacing=1.1, color=INK, parse_math=False,
            )  # fmt: skip
    return figure


def sheet_file(sheet: Sheet, form: str) -> bytes:
    """The same as a file: pdf, png or svg; of the same sheet the same bytes."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "dinolab"}):
        drawn(sheet).savefig(buffer, format=form, metadata=_UNDATED.get(form))
    return buffer.getvalue()


def _rows(pixels: Sequence[Pixels], columns: Sequence[Column]) -> list[list[Pixels]]:
    return [
        [
            tiles.sized(picture, _SIDE),
            *(
                tiles.tile(picture, one.maps[row], _SIDE)
                if row < len(one.maps)
                else tiles.nothing(_SIDE)
                for one in columns
            ),
        ]
        for row, picture in enumerate(pixels)
    ]


def _tallest(columns: Sequence[Column]) -> int:
    """Lines of names above them."""
    return max(len(_title(column)) for column in columns)


def _title(column: Column) -> list[str]:
    note = [f"({column.note})"] if column.note else []
    return [*in_lines(printable(column.name), _LETTERS, 4 - len(note)), *note]
