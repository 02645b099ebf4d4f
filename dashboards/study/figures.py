"""Every figure of a study, by name, and in parts that have room on a page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from dashboards.figures.boundary import boundary
from dashboards.figures.crossings import crossing_claims, crossings
from dashboards.figures.curves import (
    collapse_height,
    collapse_metrics,
    collapse_panel,
    curve_height,
    learning_curves,
)
from dashboards.figures.forest import verdict_intervals
from dashboards.figures.layers import globality_by_layer
from dashboards.figures.seeds import paired_seeds
from dashboards.tables.reading import CURVES, StudyRun

PAGE = 960
"""Pixels of height that a printed page has, and no part of a figure exceeds if it can."""

PANELS = 6
"""Panels in rows of three that have room on a page."""

WIDE_PANELS = 4
"""The same in rows of two."""


def every_figure(study: StudyRun, verdicts: Mapping[str, Any]) -> dict[str, go.Figure]:
    """All figures by name, in the order in which a report shows them."""
    return {
        "verdict_intervals": verdict_intervals(verdicts),
        **({"crossings": crossings(verdicts)} if crossing_claims(verdicts) else {}),
        **({"boundary": boundary(verdicts)} if study.design else {}),
        "paired_seeds": paired_seeds(study, verdicts),
        "learning_curves": learning_curves(study),
        "globality_by_layer": globality_by_layer(study),
        "collapse_panel": collapse_panel(study),
    }


def in_parts(
    study: StudyRun, verdicts: Mapping[str, Any], figures: Mapping[str, go.Figure]
) -> dict[str, list[go.Figure]]:
    """Each of these `figures`, of those with panels: whole, or as parts that have some of them."""
    hypotheses = tuple(verdicts["hypotheses"])

    def some(names: Sequence[str]) -> dict[str, Any]:
        return {"hypotheses": {name: verdicts["hypotheses"][name] for name in names}}

    panels: dict[str, tuple[Sequence[str], int, Callable[[Sequence[str]], go.Figure]]] = {
        "crossings": (
            crossing_claims(verdicts),
            WIDE_PANELS,
            lambda names: crossings(verdicts, names),
        ),
        "boundary": (hypotheses, PANELS, lambda names: boundary(some(names))),
        "paired_seeds": (hypotheses, PANELS, lambda names: paired_seeds(study, some(names))),
        "learning_curves": (
            CURVES,
            PAGE // curve_height(study),
            lambda names: learning_curves(study, names),
        ),
        "globality_by_layer": (
            study.arms,
            PANELS,
            lambda names: globality_by_layer(study, names),
        ),
        "collapse_panel": (
            collapse_metrics(study),
            PAGE // collapse_height(study),
            lambda names: collapse_panel(study, names),
        ),
    }
    parts = {}
    for name, whole in figures.items():
        shown, fit, draw = panels[name]
        room = max(fit, 1)
        places = range(0, len(shown), room)
        parts[name] = (
            [draw(shown[place : place + room]) for place in places] if len(places) > 1 else [whole]
        )
    return parts
