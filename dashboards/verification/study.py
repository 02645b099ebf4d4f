"""A whole study, verified from its run root alone; nothing is written."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.registration import REGISTRATIONS, STUDIES, Entry, study_folder
from dashboards.tables.chain import find_chain
from dashboards.tables.derived import VERDICTS
from dashboards.tables.reading import StudyRun, read_study
from dashboards.tables.values import VALUES
from dashboards.verification.arms import check_crops, check_machines, check_planned
from dashboards.verification.asked import check_asked
from dashboards.verification.derived import Derived, check_derived
from dashboards.verification.deviations import check_deviations
from dashboards.verification.finding import Finding, runs_text
from dashboards.verification.looks import check_looks
from dashboards.verification.registrations import check_chain
from dashboards.verification.trials import Checked, check_trial
from dashboards.verification.turned import check_turned
from trainers.errors import InputError, StoreError, listed
from trainers.runs.stored_trial import TRIALS, StoredTrial
from trainers.runs.version import differing
from trainers.system.keys import Entry as Object
from trainers.system.store import AT_ONCE, Store


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was checked of a study, and what is wrong."""

    study: str
    sha256: str
    """digest of its newest registration that can be read; empty without one"""
    checked: Mapping[str, int]
    """how much of what"""
    notes: tuple[str, ...]
    """what is not wrong, and must be said"""
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Fields by name as JSON types."""
        return {
            "study": self.study,
            "sha256": self.sha256,
            "checked": dict(self.checked),
            "notes": list(self.notes),
            "findings": [one.to_json() for one in self.findings],
        }


def verify_study(store: Store, name: str, analysis: Mapping[str, str]) -> Verified:
    """Everything of a study that can be computed again, computed and compared.

    `analysis` are the versions of the modules that judge here. Raises InputError, one line, where
    there is no such study.
    """
    chain = check_chain(store, name)
    entries = chain.entries
    checked = _check_trials(store, entries)
    counts = {
        "registrations": len(entries),
        "witnessed": chain.witnessed,
        "trials": len(checked),
        "finished": sum(trial.result is not None for trial in checked.values()),
        "files": sum(len(trial.digests) for trial in checked.values()),
    }
    findings = [*chain.findings, *(one for trial in checked.values() for one in trial.findings)]
    notes: list[str] = []
    if entries:
        wrong, unknown = check_planned(entries[-1], checked)
        crops, counts["crops"] = check_crops(entries[-1], checked)
        unasked, reused = check_asked(store, entries, checked)
        knew = any(entry.known or entry.under_way for entry in entries)
        others = _others(store, name) if knew else []
        findings += [*wrong, *crops, *unasked, *check_deviations(entries, checked, others)]
        findings += check_turned(entries, others)
        notes += [*reused, *([unknown] if unknown else [])]
    if not chain.findings and all(trial.is_whole for trial in checked.values()):
        derived = _check_what_is_made(store, name, entries, checked, notes)
        findings += derived.findings
        counts |= {
            "derived": len(derived.compared),
            "hypotheses": len(entries[-1].resolved.hypotheses),
        }
        if derived.findings and (other := differing(entries[-1].analysis, analysis)):
            notes.append(
                f"verdicts were made again with other code than is registered: {listed(other)}"
            )
    else:
        notes.append(
            "results, verdicts, report and figures are not compared, since files that they "
            "rest on are damaged or missing"
        )
    return Verified(
        study=name,
        sha256=entries[-1].digest if entries else "",
        checked=counts | {"unsealed": sum(len(trial.unsealed) for trial in checked.values())},
        notes=tuple(notes),
        findings=tuple(findings),
    )


def _others(store: Store, name: str) -> list[list[Entry]]:
    """The registrations of the other studies of the root; those of a damaged chain are left out."""
    found = []
    for other in store.names(STUDIES):
        # What is wrong with it is said by those who verify that study.
        with contextlib.suppress(InputError):
            found += [find_chain(store, other)] if other != name else []
    return found


def _check_trials(store: Store, chain: Sequence[Entry]) -> dict[str, Checked]:
    """Every trial that a registration names, by key; only begun ones are looked at."""
    named: dict[str, list[Entry]] = {}
    arms: dict[str, list[str]] = {}
    for entry in chain:
        for place in entry.trials:
            entries = named.setdefault(place.key, [])
            if entry not in entries[-1:]:
                entries.append(entry)
            text = f"{place.arm}, seed {place.seed}"
            if text not in arms.setdefault(place.key, []):
                arms[place.key].append(text)

    def check(key: str) -> Checked:
        return check_trial(StoredTrial(store, key), named[key], " and ".join(arms[key]))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {one.key: one for one in pool.map(check, named)}


def _check_what_is_made(
    store: Store,
    name: str,
    chain: Sequence[Entry],
    checked: Mapping[str, Checked],
    notes: list[str],
) -> Derived:
    """Machines of pairs, results, verdicts, report and figures, from trials that are whole."""
    last = _judged_as(store, name, chain)
    if last < len(chain):
        notes.append(
            f"verdicts are those of registration {last}, and the newest is {len(chain)}: "
            "`dinolab report` judges it"
        )
    made = {
        f"{TRIALS}/{key}/{VALUES}": trial.values
        for key, trial in checked.items()
        if trial.values is not None
    }
    study = read_study(_Checked(store, made, last), name)
    unfinished = _unfinished(study)
    notes += [unfinished] if unfinished else []
    derived = check_derived(study, store, finished=not unfinished)
    derived.findings += [*check_machines(study), *check_looks(study, store)]
    notes += derived.notes
    return derived


def _judged_as(store: Store, name: str, chain: Sequence[Entry]) -> int:
    """The number of the registration that was judged last; the newest where none is known."""
    try:
        found = json.loads(store.get(f"{study_folder(name)}/{VERDICTS}") or b"")
        sha256 = found["registration"]["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        sha256 = ""
    return next((one.number for one in chain if one.digest == sha256), len(chain))


def _unfinished(study: StudyRun) -> str:
    """Which runs have no result though they are needed, in words; empty when all have."""
    places = [place for place, run in study.runs.items() if run.status in ("missing", "failed")]
    if not places:
        return ""
    number, of = len(places), len(study.runs)
    return f"not finished: {number} of {of} runs have no result ({runs_text(places)})"


class _Checked:
    """A run root that is only read: tables of trials as checked, registrations up to `last`."""

    local: Path | None = None

    def __init__(self, store: Store, made: Mapping[str, bytes], last: int) -> None:
        self.store, self.made, self.last = store, made, last
        self.shown = store.shown

    def get(self, key: str) -> bytes | None:
        """See Store."""
        return self.made.get(key) or self.store.get(key)

    def names(self, prefix: str = "") -> list[str]:
        """See Store."""
        names = self.store.names(prefix)
        if not prefix.endswith(f"/{REGISTRATIONS}"):
            return names
        numbers = {name: name.partition(".")[0] for name in names}
        return [name for name, one in numbers.items() if one.isdecimal() and int(one) <= self.last]

    def put(self, key: str, content: bytes, *, if_absent: bool = False) -> bool:
        """See Store."""
        raise StoreError(f"{self.shown}/{key} is only read")

    def put_file(self, key: str, path: Path) -> None:
        """See Store."""
        self.put(key, b"")

    def get_file(self, key: str, path: Path) -> bool:
        """See Store."""
        return self.store.get_file(key, path)

    def delete(self, key: str) -> None:
        """See Store."""
        self.put(key, b"")

    def list(self, prefix: str = "") -> list[Object]:
        """See Store."""
        return self.store.list(prefix)
