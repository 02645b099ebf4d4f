"""The chain of a study's registrations, read file by file: one that is damaged hides no other."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from ablations.registration import (
    Entry,
    entry_of,
    registration_key,
    shortened,
    study_folder,
)
from dashboards.tables.chain import digest_line, last_number
from dashboards.verification.finding import Finding, sha256_of
from trainers.config import explain
from trainers.errors import InputError
from trainers.system.store import Store


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The registrations that can be read, the first one first, and what is wrong with any."""

    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]
    witnessed: int
    """how many have what a witness said beside them"""


def check_chain(store: Store, name: str) -> Chain:
    """Every registration: its bytes, its number, its parent, its diff and its witness.

    Raises InputError, one line, where the study has none at all.
    """
    last = 0
    with contextlib.suppress(ValueError):  # no such name can be a study's
        last = last_number(store, name)
    if not last:
        raise InputError(
            f"{store.shown}/{study_folder(name)} has no registration: there is nothing to verify"
        )
    entries: list[Entry] = []
    findings: list[Finding] = []
    before: str | None = None
    """digest of the file before, whatever it holds; None where that is missing"""
    for number in range(1, last + 1):
        key = registration_key(name, number)
        content = store.get(key)
        if content is None:
            findings.append(
                Finding(kind="missing", where=key, what="a later registration is there")
            )
            before = None
            continue
        try:
            entry = entry_of(content)
        except ValueError as error:
            what = "it is not as it was written: its digest is another"
            if isinstance(error, ValidationError):
                what = f"its digest fits, and what it says does not: {shortened(explain(error))}"
            findings.append(Finding(kind="damaged", where=key, what=what))
            before = None
            continue
        problems = list(_problems(entry, name, number, before))
        problems += _beside(store, key, entry)
        findings += problems
        before = entry.digest
        entries.append(entry)
    witnesses = (registration_key(one.study, one.number, "witness") for one in entries)
    kept = sum(store.get(key) is not None for key in witnesses)
    return Chain(entries=tuple(entries), findings=tuple(findings), witnessed=kept)


def _problems(entry: Entry, name: str, number: int, before: str | None) -> Iterator[Finding]:
    """What does not fit to the place of an entry; `before` is None where that is unknown."""
    key = registration_key(name, number)
    if entry.study != name:
        yield Finding(kind="differs", where=key, what=f"it states the study {entry.study}")
    if entry.number != number:
        yield Finding(kind="differs", where=key, what=f"it is registration {entry.number}")
    if number == 1 and entry.parent is not None:
        what = f"it follows sha256 {entry.parent[:12]}, which is not there"
        yield Finding(kind="differs", where=key, what=what)
    if before is not None and entry.parent != before:
        follows = f"sha256 {entry.parent[:12]}" if entry.parent else "none"
        what = f"it follows {follows}, and the one before it is sha256 {before[:12]}"
        yield Finding(kind="differs", where=key, what=what)


def _beside(store: Store, key: str, entry: Entry) -> Iterator[Finding]:
    """What is wrong with what was not committed, and with what a witness said."""
    stated = entry.git.get("diff_sha256")
    diff_key = registration_key(entry.study, entry.number, "diff")
    witness_key = registration_key(entry.study, entry.number, "witness")
    diff, witness = store.get(diff_key), store.get(witness_key)
    if stated is not None and diff is None:
        yield Finding(kind="missing", where=diff_key, what=f"{key} names it")
    elif diff is not None and sha256_of(diff) != stated:
        yield Finding(kind="damaged", where=diff_key, what=f"its digest is not the one in {key}")
    said = store.get(digest_key := f"{witness_key}.sha256")
    if witness is not None and said not in (None, digest_line(witness, witness_key)):
        what = f"its digest is not the one in {digest_key}"
        yield Finding(kind="damaged", where=witness_key, what=what)
        return
    named = set(re.findall(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", witness or b""))
    if named and entry.digest.encode() not in named:
        what = f"it names another digest than that of the registration, {entry.digest[:12]}"
        yield Finding(kind="differs", where=witness_key, what=what)
