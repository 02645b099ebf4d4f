"""The registrations of a study, as its report prints them."""

from typing import Any

from ablations.changes import changes
from ablations.registration import registration_key
from dashboards.tables.reading import StudyRun

LONGEST_WITNESS = 300
"""Characters that the report shows of what a witness said."""


def registrations(study: StudyRun) -> list[dict[str, Any]]:
    """Each registration, the first one first: what it changed, why, and what was known."""
    return [
        {
            "entry": entry,
            "changes": changes(study.chain[place - 1], entry) if place else [],
            "commit": str(entry.git.get("commit") or "unknown"),
            "witness": _witness(study, entry.number),
        }
        for place, entry in enumerate(study.chain)
    ]


def _witness(study: StudyRun, number: int) -> str:
    """What the witness of a registration printed, the beginning of it; empty without one."""
    key = registration_key(study.name, number, "witness")
    said = (study.store.get(key) or b"").decode(errors="replace")
    return " ".join(said.split())[:LONGEST_WITNESS]
