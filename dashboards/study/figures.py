"""Every figure of a study, by name."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from dashboards.figures.boundary import boundary
from dashboards.figures.curves import collapse_panel, learning_curves
from dashboards.figures.forest import verdict_intervals
from dashboards.figures.layers import globality_by_layer
from dashboards.figures.seeds import paired_seeds
from dashboards.tables.reading import StudyRun


def every_figure(study: StudyRun, verdicts: Mapping[str, Any]) -> dict[str, go.Figure]:
    """All figures by name, in the order in which a report shows them."""
    return {
        "verdict_intervals": verdict_intervals(verdicts),
        **({"boundary": boundary(verdicts)} if study.design else {}),
        "paired_seeds": paired_seeds(study, verdicts),
        "learning_curves": learning_curves(study),
        "globality_by_layer": globality_by_layer(study),
        "collapse_panel": collapse_panel(study),
    }
