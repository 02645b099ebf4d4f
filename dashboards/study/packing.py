"""What a report holds packed, and draws or fills in by itself: its figures and their numbers."""

import json
import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from dashboards.study.tables import Cell, Table


def ids(parts: Mapping[str, Sequence[go.Figure]]) -> dict[str, list[str]]:
    """Where each part of each figure is drawn: its name, or that with the number of the part."""
    return {
        name: [name if place == 1 else f"{name}-{place}" for place in range(1, len(shown) + 1)]
        for name, shown in parts.items()
    }


def drawn(parts: Mapping[str, Sequence[go.Figure]]) -> str:
    """All parts of figures by where they are drawn, as JSON."""
    places = [place for shown in ids(parts).values() for place in shown]
    figures = [figure for shown in parts.values() for figure in shown]
    shown = [f'"{place}": {one.to_json()}' for place, one in zip(places, figures, strict=True)]
    return f"{{{', '.join(shown)}}}"


def numbers(tables: Mapping[str, Table]) -> str:
    """Columns and rows of all tables, as JSON; numbers have six digits."""
    shown = {
        name: {
            "columns": table.columns,
            "rows": [[_short(cell) for cell in row] for row in table.rows],
        }
        for name, table in tables.items()
    }
    return json.dumps(shown, ensure_ascii=False, allow_nan=False)


def _short(cell: Cell) -> Cell:
    if not isinstance(cell, float):
        return cell
    return float(f"{cell:.6g}") if math.isfinite(cell) else str(cell)
