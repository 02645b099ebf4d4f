"""The registrations of a study, read from its run root and checked."""

import contextlib
import hashlib
import re
from pathlib import PurePath

from pydantic import ValidationError

from ablations.registration import (
    LOCK,
    REGISTRATIONS,
    Entry,
    entry_of,
    registration_key,
    shortened,
    study_folder,
)
from trainers.config import explain
from trainers.errors import InputError, RootError, printable
from trainers.system.store import Store

_AGAIN = (
    f"restore the file, or remove it and the rest of the study's {REGISTRATIONS}: the next run "
    "registers the study anew, and what has results then is exploratory"
)


def read_chain(store: Store, name: str) -> list[Entry]:
    """Every registration of a study, the first one first, each with the digest of its file.

    A study of before, which has a lock and no registrations, has one entry: number 0.
    Raises InputError, one line that names the file, where there is no such study or one of its
    registrations is damaged, missing, or does not follow the one before.
    """
    chain: list[Entry] = []
    with contextlib.suppress(ValueError):  # no such name can be a study's
        chain = find_chain(store, name)
    if not chain:
        shown = f"{store.shown}/{printable(study_folder(name))}"
        raise InputError(f"{shown} is no study: it has no registration")
    return chain


def find_chain(store: Store, name: str) -> list[Entry]:
    """The same; empty where there is no such study."""
    last = last_number(store, name)
    if not last:
        return _locked(store, name)
    chain: list[Entry] = []
    for number in range(1, last + 1):
        key = registration_key(name, number)
        content = store.get(key)
        if content is None:
            raise InputError(f"{store.shown}/{key} is missing: {_AGAIN}")
        try:
            entry = entry_of(content)
        except ValueError as error:
            raise InputError(f"{store.shown}/{key} is damaged: {_why(error)}; {_AGAIN}") from None
        _check_place(entry, store, name, number, chain)
        chain.append(entry)
    return chain


def last_number(store: Store, name: str) -> int:
    """The number of the newest file of a registration; 0 where the study has none.

    Raises ValueError for what can be no study's name.
    """
    names = store.names(f"{study_folder(name)}/{REGISTRATIONS}")
    found = (re.fullmatch(r"(\d{4,})\.json", one) for one in names)
    return max((int(one[1]) for one in found if one), default=0)


def read_entry(store: Store, name: str) -> Entry:
    """The newest registration of a study. Raises InputError, one line, as `read_chain`."""
    return read_chain(store, name)[-1]


def old_studies(store: Store) -> list[str]:
    """The names of studies that dinolab 0.1 made, which lie at the top of the root."""
    return [name for name in store.names() if store.get(f"{name}/{LOCK}") is not None]


def refuse_old_layout(store: Store, study: str) -> None:
    """Raises RootError, one line, where the study was run by a version whose trials lay in it."""
    if store.get(f"{study}/{LOCK}") is not None:
        raise RootError(
            f"{store.shown}/{study} was made by dinolab 0.1, which kept trials inside "
            "each study: read it with that version, or give another --root"
        )


def digest_line(content: bytes, key: str) -> bytes:
    """What `sha256sum` prints of a file, and checks it by."""
    return f"{hashlib.sha256(content).hexdigest()}  {PurePath(key).name}\n".encode()


def _check_place(entry: Entry, store: Store, name: str, number: int, chain: list[Entry]) -> None:
    """Raises InputError where an entry is not what belongs behind the chain."""
    shown = f"{store.shown}/{registration_key(name, number)}"
    if entry.study != name:
        raise InputError(
            f"{shown} states the study {entry.study}: give its folder that name, or move the file"
        )
    parent = chain[-1].digest if chain else None
    if entry.number != number or entry.parent != parent:
        before = f"sha256 {parent[:12]}" if parent else "none"
        raise InputError(
            f"{shown} is damaged: it is registration {entry.number}, which follows "
            f"{f'sha256 {entry.parent[:12]}' if entry.parent else 'none'}, and the one before it "
            f"is {before}; {_AGAIN}"
        )


def _locked(store: Store, name: str) -> list[Entry]:
    """What a study of before had in place of a chain."""
    key = f"{study_folder(name)}/{LOCK}"
    content = store.get(key)
    if content is None:
        refuse_old_layout(store, name)
        return []
    try:
        entry = Entry.model_validate_json(content)
    except ValidationError as error:
        raise InputError(
            f"{store.shown}/{key} is damaged: {_why(error)}; restore the file"
        ) from None
    if entry.study != name:
        raise InputError(
            f"{store.shown}/{key} states the study {entry.study}: give its folder that name"
        )
    return [entry]


def _why(error: ValueError) -> str:
    return shortened(explain(error)) if isinstance(error, ValidationError) else str(error)
