"""The looks that verdicts say were taken, against those that were planned."""

import json
from collections.abc import Iterator

from ablations.verdicts.looks import Followed, follow
from dashboards.tables.derived import VERDICTS
from dashboards.tables.reading import StudyRun
from dashboards.verification.finding import Finding
from trainers.errors import listed
from trainers.system.store import Store


def check_looks(study: StudyRun, store: Store) -> Iterator[Finding]:
    """Looks in `verdicts.json` that are not of the design, and ends that it did not allow."""
    key = f"{study.folder}/{VERDICTS}"
    planned = study.design.looks if study.design else ()
    followed = _followed(study)
    for name, (looks, seeds) in _taken(store.get(key)).items():
        what = ""
        if wrong := [look for look in looks if look not in planned]:
            at = f"at {listed([*map(str, planned)])}" if planned else "nowhere"
            what = f"was looked at with {listed([*map(str, wrong)])} seeds; looks are planned {at}"
        elif looks and looks[-1] == seeds < planned[-1] and name in followed:
            what = _not_allowed(followed[name], len(looks), seeds)
        if what:
            yield Finding(kind="deviated", where=key, what=f"hypothesis {name} {what}")


def _taken(content: bytes | None) -> dict[str, tuple[list[int], int]]:
    """Of each hypothesis how many seeds each look had, and how many its verdict has."""
    try:
        written = json.loads(content or b"")["hypotheses"]
        return {
            name: ([_whole(look["seeds"]) for look in verdict["looks"]], len(verdict["seeds"]))
            for name, verdict in ((name, one["verdict"]) for name, one in written.items())
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # whoever compares the file says what is wrong with it


def _whole(number: object) -> int:
    if type(number) is not int:  # Infinity, NaN and true are no number of seeds
        raise TypeError
    return number


def _followed(study: StudyRun) -> dict[str, Followed]:
    if study.design is None:
        return {}
    return follow(
        study.hypotheses,
        study.gates,
        study.runs,
        study.seeds,
        study.design,
        multiplicity=study.entry.resolved.multiplicity,
        references=study.entry.dataset.get("references", {}),
    )


def _not_allowed(followed: Followed, number: int, seeds: int) -> str:
    """Why no verdict could stop at a look, in words; empty if it could."""
    looks = followed.verdict.looks
    if followed.is_decided and len(looks) <= number:
        return ""
    what = f"was stopped at look {number}, with {seeds} seeds, which its boundary does not allow"
    if len(looks) < number or looks[number - 1].p is None:
        return what
    look = looks[number - 1]
    level = look.level if look.level_first is None else look.level_first
    return f"{what}: p is {look.p:.3g}, against {level:.3g}"
