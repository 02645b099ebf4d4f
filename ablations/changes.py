"""What differs between two registrations of a study, in words."""

from collections.abc import Iterator, Mapping
from typing import Any

from ablations.registration import GROUPS, Entry
from trainers.errors import listed
from trainers.runs.version import differing


def changes(before: Entry, now: Entry) -> list[str]:
    """What differs between two statements of a study, a line each; empty when nothing does.

    What was known, when, and from which commit is no part of what is stated.
    """
    lines = [
        *differences("", before.of_all, now.of_all),
        *differences("", before.knobs, now.knobs),
    ]
    for group, one in GROUPS.items():
        lines += differences(f"{one} ", before.plain[group], now.plain[group])
    if before.sequence != now.sequence and {*before.sequence} == {*now.sequence}:
        lines.append(f"hypotheses in another order: {', '.join(now.sequence)}")
    digests = [str(entry.dataset.get("digest", "unknown")) for entry in (before, now)]
    if digests[0] != digests[1]:
        lines.append(f"data: sha256 {digests[0][:12]} -> {digests[1][:12]}")
    for title, old, new in (
        ("code of trials", before.code, now.code),
        ("code that judges", before.analysis, now.analysis),
    ):
        if other := differing(old, new):
            lines.append(f"{title}: {listed(other)}")
    lines += differences("", before.computing, now.computing)
    if not lines and before.trial_keys != now.trial_keys:
        lines.append("what runs start from or read: weights at model.weights, or an arm's images")
    return lines


def differences(kind: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two mappings of JSON types, a line each; `kind` says what they name."""
    for name in dict.fromkeys((*before, *now)):
        what = f"{kind}{name}"
        if name not in now:
            yield f"{what} left out" if kind else f"{what} {_shown(before[name])} left out"
        elif name not in before:
            yield f"{what} added" if kind else f"{what} {_shown(now[name])} added"
        elif before[name] != now[name]:
            if kind and isinstance(before[name], dict):
                yield from (f"{what}: {line}" for line in differences("", before[name], now[name]))
            else:
                yield f"{what} {_shown(before[name])} -> {_shown(now[name])}"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
