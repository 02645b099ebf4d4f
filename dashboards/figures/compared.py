"""What a hypothesis compares, in words, and how the runs of its sides ended."""

import json
from collections.abc import Mapping
from typing import Any

from ablations.spec import Hypothesis
from dashboards.tables.reading import StudyRun


def sides_of(hypothesis: Mapping[str, Any]) -> tuple[str, str]:
    """In words, what a hypothesis compares and what with, as `verdicts.json` holds it."""
    return Hypothesis.model_validate_json(json.dumps(hypothesis)).sides


def compared(hypothesis: Mapping[str, Any]) -> str:
    """Both sides in one line."""
    arm, against = sides_of(hypothesis)
    return f"{arm} − {against}" if against else arm


def end_point(hypothesis: Mapping[str, Any]) -> str:
    """The metric that a hypothesis compares, or the ending."""
    return str(hypothesis["metric"] or hypothesis["endpoint"])


def how_ended(study: StudyRun, side: str, seed: int) -> str:
    """How the run of a side that is one arm ended; sides of several have only finished ones."""
    run = study.runs.get((side, seed))
    return "finished" if run is None else run.status


def is_finished(study: StudyRun, arm: str, seed: int) -> bool:
    return study.runs[arm, seed].status == "finished"
