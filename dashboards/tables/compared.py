"""Two studies of a run root side by side: what was stated otherwise, and what each has shown."""

from dataclasses import dataclass

from ablations.changes import changes
from dashboards.tables.watched import Told, Watched
from trainers.system.store import Store


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two studies. Nothing is judged anew: a difference between them has no verdict."""

    differs: list[str]
    """from the first to the second, a line each"""
    hypotheses: dict[str, tuple[Told | None, Told | None]]
    """by id, in the order of the first; None where a study does not state it, or may not tell"""
    silent: list[str]
    """the studies of which nothing may be told while runs are missing"""


def compared_studies(store: Store, first: str, second: str) -> Compared:
    """The newest registrations and results of two studies. Raises InputError, one line."""
    watched = [Watched(store, name) for name in (first, second)]
    seen = [one.look() for one in watched]
    told = [{one.name: one for one in study.told} for study in seen]
    names = [name for study in seen for name in study.entry.resolved.hypotheses]
    return Compared(
        differs=changes(seen[0].entry, seen[1].entry),
        hypotheses={name: (told[0].get(name), told[1].get(name)) for name in dict.fromkeys(names)},
        silent=list(
            dict.fromkeys(
                study.entry.study
                for study in seen
                if study.entry.resolved.hypotheses and not study.told
            )
        ),
    )
