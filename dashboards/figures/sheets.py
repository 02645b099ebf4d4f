"""Maps over the same images, side by side in columns, and as one drawing that a paper takes."""

import io
from collections.abc import Sequence
from typing import NamedTuple

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


def drawn(sheet: Sheet) -> Figure:
    """The sheet on a white ground, at most _LINE columns in a line, the images before each."""
    lines = [
        (band.name if start == 0 else "", band.columns[start : start + _LINE])
        for band in sheet.bands
        for start in range(0, len(band.columns), _LINE)
    ]
    step = (_SIDE + _GAP) / DOTS
    width = step * (1 + max(len(columns) for _, columns in lines))
    heights = [
        (step * len(sheet.pixels), 0.55 + (0.2 if name else 0)) for name, _ in lines
    ]  # inches of tiles, and of names above them
    height = sum(map(sum, heights)) + 0.05
    figure = Figure(figsize=(width, height), dpi=DOTS)
    FigureCanvasAgg(figure)
    figure.set_facecolor("white")
    top = height
    for (name, columns), (of_tiles, above) in zip(lines, heights, strict=True):
        top -= above
        rows = _rows(sheet.pixels, columns)
        array = tiles.sheet(rows, _GAP)
        place = figure.add_axes(
            (0, (top - of_tiles) / height, array.shape[1] / DOTS / width, of_tiles / height)
        )
        place.set_axis_off()
        place.imshow(array, interpolation="nearest", aspect="auto")
        titles = ["image", *("\n".join(_title(one)) for one in columns)]
        for number, title in enumerate(titles):
            place.text(
                number * (_SIDE + _GAP), -8, title, va="bottom", fontsize=6, color=INK,
                parse_math=False, linespacing=1.1,
            )  # fmt: skip
        if name:
            words = " ".join(in_lines(printable(name), 60, 1))
            place.text(
                0, -8 - 0.48 * DOTS, words, va="bottom", fontsize=8, color=QUIET, parse_math=False
            )
        top -= of_tiles
    return figure


def sheet_file(sheet: Sheet, form: str) -> bytes:
    """The same as a file: pdf, png or svg."""
    buffer = io.BytesIO()
    drawn(sheet).savefig(buffer, format=form)
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


def _title(column: Column) -> list[str]:
    note = [f"({column.note})"] if column.note else []
    return [*in_lines(printable(column.name), _LETTERS, 4 - len(note)), *note]
