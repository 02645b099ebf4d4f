"""Two measured models side by side, from the folders that `dinolab measure` wrote."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.changes import differences
from dashboards.measurement.report import SUMMARY
from trainers.config import leaves
from trainers.errors import InputError, printable


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two measurements. They are single networks: their differences have no intervals."""

    differs: list[str]
    """models, images, settings and versions, from the first to the second, a line each"""
    metrics: dict[str, tuple[float | None, float | None]]
    """by name, over the primary layers or of the final block; None where one has it not"""


def is_measured(folder: Path) -> bool:
    """Whether it is a folder that `dinolab measure` wrote."""
    return (folder / SUMMARY).is_file()


def compared_measurements(first: Path, second: Path) -> Compared:
    """Two measured folders. Raises InputError, one line, when one is damaged."""
    summaries = [_summary(folder) for folder in (first, second)]
    metrics = [one.pop("metrics") for one in summaries]
    for one in summaries:
        one.pop("notes", None)
    facts = [dict(leaves(one)) for one in summaries]
    return Compared(
        differs=list(differences("", *facts)),
        metrics={
            name: (metrics[0].get(name), metrics[1].get(name))
            for name in dict.fromkeys(name for one in metrics for name in one)
        },
    )


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for value in found["metrics"].values():
            if value is not None:
                float(value)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise InputError(
            f"{printable(str(path))} is damaged: it is no summary of `dinolab measure`; measure "
            "again"
        ) from None
    return dict(found)
