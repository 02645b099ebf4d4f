"""Which registration asked for each result: one of this root, or none."""

import contextlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from ablations.registration import STUDIES, Entry, entry_of, registration_key
from dashboards.tables.chain import last_number
from dashboards.verification.finding import Finding, runs_text, sha256_of
from dashboards.verification.trials import Checked
from trainers.runs.stored_trial import TRIALS
from trainers.system.store import Store

_OUTSIDE = "reused, trained outside a study"
_ELSEWHERE = "reused, trained under a registration that this root has not"


def check_asked(
    store: Store, chain: Sequence[Entry], checked: Mapping[str, Checked]
) -> tuple[list[Finding], list[str]]:
    """Results that no registration of the root asked for, nor knew when it was stated; and what is
    reused or shared, in words.

    A result names the registrations under which its attempts ran. What the first registration of
    its trial knew, or saw under way, is reused: the word of its hypotheses says so.
    """
    firsts: dict[str, Entry] = {}
    for entry in chain:
        for place in entry.trials:
            firsts.setdefault(place.key, entry)
    named = {key: names_of(checked[key]) for key, first in firsts.items() if first.results_name_it}
    there = {entry.digest: entry for entry in chain}
    there |= _elsewhere(store, {name for of in named.values() for name in of} - there.keys())
    findings: list[Finding] = []
    reused: dict[str, list[str]] = defaultdict(list)
    for key, name in ((key, name) for key, names in named.items() for name in names):
        first, asked = firsts[key], there.get(name)
        where = f"{TRIALS}/{key}/result.json"
        if asked is None:
            how = _ELSEWHERE if name else _OUTSIDE
            if key in first.known or key in first.under_way:
                reused[how].append(key)
                continue
            what = (
                f"{how}{f' (sha256 {name[:12]})' if name else ''}; registration {first.number}, "
                "which stated this trial, did not know it: it may have been seen before"
            )
            findings.append(Finding(kind="deviated", where=where, what=what))
        elif all(place.key != key for place in asked.trials):
            of = f"registration {asked.number} of study {asked.study}"
            what = f"it was trained for {of}, as it says, which has no such trial"
            findings.append(Finding(kind="differs", where=where, what=what))
        elif asked.study != first.study:
            reused[f"shared, trained for study {asked.study}"].append(key)
    return findings, [_note(how, keys, firsts) for how, keys in reused.items()]


def _note(how: str, keys: Sequence[str], firsts: Mapping[str, Entry]) -> str:
    places = [(p.arm, p.seed) for key in keys for p in firsts[key].trials if p.key == key]
    results = "1 result is" if len(keys) == 1 else f"{len(keys)} results are"
    return f"{results} {how} ({runs_text(places)})"


def names_of(checked: Checked) -> list[str]:
    """Digests of the registrations that a result names, an empty one for attempts outside a study;
    none without a result."""
    if checked.result is None:
        return []
    names = checked.result.get("registrations")
    return list(map(str, names)) if isinstance(names, list) and names else [""]


def _elsewhere(store: Store, wanted: Collection[str]) -> dict[str, Entry]:
    """Those registrations of the whole root whose digests are wanted."""
    found = {}
    for study in store.names(STUDIES) if wanted else ():
        for number in range(1, last_number(store, study) + 1):
            content = store.get(registration_key(study, number)) or b""
            if (digest := sha256_of(content)) in wanted:
                # One that cannot be read is said by those who verify its study.
                with contextlib.suppress(ValueError):
                    found[digest] = entry_of(content)
    return found
