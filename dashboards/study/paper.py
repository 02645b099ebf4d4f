"""One figure or one table of a study as a file that a paper takes."""

import csv
import io
from collections.abc import Mapping
from typing import Any, TypeVar

import plotly.graph_objects as go

from dashboards.figures.sheets import Sheet, sheet_file
from dashboards.study.tables import Cell, Table
from trainers.errors import InputError

ENDINGS = {"pdf": "pdf", "png": "png", "svg": "svg", "latex": "tex", "csv": "csv"}
"""Of files, by format."""

WIDTH = 1100
"""pixels of a figure, as on a screen"""

LONGEST = 40
"""Rows of a table that has to fit a page."""

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
"""What a spreadsheet takes for the beginning of a formula."""

_SYMBOLS = {"→": r"$\to$", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "≥": r"$\geq$"}
"""What LaTeX knows by another name."""

One = TypeVar("One")


def named(what: str, ones: Mapping[str, One], name: str) -> One:
    """The one of that name; raises InputError, which names all."""
    if name not in ones:
        raise InputError(f"there is no {what} {name!r} (allowed: {', '.join(ones)})")
    return ones[name]


def figure_file(figure: go.Figure | Sheet, form: str) -> bytes:
    """The figure on a white ground.

    Raises InputError where kaleido or the browser that it draws with is not there; a sheet of maps
    needs neither.
    """
    if isinstance(figure, Sheet):
        return sheet_file(figure, form)
    try:
        import kaleido
        from choreographer.errors import (
            BrowserClosedError,
            BrowserFailedError,
            ChannelClosedError,
            ChromeNotFoundError,
        )
    except ImportError as error:
        raise InputError(f"figures as {form} need kaleido: pip install kaleido") from error
    white = go.Figure(figure).update_layout(paper_bgcolor="white", plot_bgcolor="white")
    size = {"width": WIDTH, "height": figure.layout.height, "scale": 2 if form == "png" else 1}
    try:
        # MathJax would come from the network.
        drawn: bytes = kaleido.calc_fig_sync(
            white.to_dict(), opts={"format": form, **size}, kopts={"mathjax": False}
        )
    except ChromeNotFoundError as error:
        raise InputError(
            f"figures as {form} are drawn by Chrome or Chromium, and neither is there: install "
            "one (Debian: apt-get install chromium), or name it in BROWSER_PATH"
        ) from error
    except (BrowserClosedError, BrowserFailedError, ChannelClosedError) as error:
        raise InputError(
            f"figures as {form} are drawn by Chrome or Chromium, and the one that was found ended "
            "at once: start it by hand to see why, or name another one in BROWSER_PATH"
        ) from error
    return drawn


def table_file(table: Table, form: str) -> bytes:
    """The table: of LaTeX a `tabular` with the rules of booktabs, a `longtable` where it is long.

    CSV has every digit, and no cell that a spreadsheet would compute: before text that begins like
    a formula stands an apostrophe.
    """
    if form == "csv":
        text = io.StringIO(newline="")
        rows = [[_harmless(cell) for cell in row] for row in table.rows]
        csv.writer(text).writerows([table.columns, *rows])
        return text.getvalue().encode()
    import pandas as pd

    rows = [[_short(cell) for cell in row] for row in table.rows]
    frame = pd.DataFrame(rows, columns=list(table.columns), dtype=object)
    written = frame.to_latex(index=False, escape=True, longtable=len(rows) > LONGEST)
    for symbol, command in _SYMBOLS.items():
        written = written.replace(symbol, command)
    return written.encode()


def _harmless(cell: Cell) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip(" ").startswith(_FORMULA) else cell


def _short(cell: Cell) -> str:
    """In one line, with four digits, or a dash where there is none."""
    if cell is None:
        return "--"
    return f"{cell:.4g}" if isinstance(cell, float) else " ".join(str(cell).split())
