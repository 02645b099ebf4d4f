"""What a verification finds: one line, which names a file or a trial and what is wrong."""

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ablations.verdicts.reasons import seed_list
from trainers.errors import printable
from trainers.runs.records import Digest, digest_of
from trainers.runs.stored_trial import digest_of_file
from trainers.system.store import Store

Kind = Literal["damaged", "missing", "differs", "deviated"]
"""damaged: a file is not what was written. missing: what was there is there no more, or what
belongs beside it is not there. differs: two things that must agree do not. deviated: all is there,
and it is not what was planned before there were results."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    kind: Kind
    where: str
    """key of a file in the run root, or what else it is about"""
    what: str

    def __post_init__(self) -> None:
        # What a damaged file says may be anything, half of a character too.
        for name in ("where", "what"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    @property
    def line(self) -> str:
        """As people read it."""
        return f"{self.kind}: {self.where}: {self.what}"

    def to_json(self) -> dict[str, Any]:
        """Fields by name."""
        return {"kind": self.kind, "where": self.where, "what": self.what}


def digest_at(store: Store, key: str) -> Digest | None:
    """The digest of a file of the root, which may be large; None where there is none."""
    if store.local is not None:
        try:
            return digest_of_file(store.local / key)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
    with tempfile.TemporaryDirectory(prefix="dinolab-") as scratch:
        path = Path(scratch) / "file"
        return digest_of_file(path) if store.get_file(key, path) else None


def compared(store: Store, key: str, stated: Digest, by: str) -> Finding | None:
    """What is wrong with a file whose digest `by` states; None where nothing is."""
    found = digest_at(store, key)
    if found == stated:
        return None
    if found is None:
        return Finding(kind="missing", where=key, what=f"{by} names it")
    return Finding(kind="damaged", where=key, what=f"its digest is not the one in {by}")


def runs_text(places: Iterable[tuple[str, int]]) -> str:
    """Runs by arm and seed, in words."""
    of_arm: dict[str, list[int]] = {}
    for arm, seed in places:
        of_arm.setdefault(arm, []).append(seed)
    return "; ".join(f"{arm}: {seed_list(seeds)}" for arm, seeds in of_arm.items())


def knowing(known: int, under_way: int) -> str:
    """What there was to look at of results, and runs under way, in words; empty if nothing."""
    said = [f"knowing {known} {'result' if known == 1 else 'results'}"] if known else []
    said += [f"with {under_way} {'run' if under_way == 1 else 'runs'} under way"] * bool(under_way)
    return ", " + ", ".join(said) if said else ""


def sha256_of(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def is_digest(stated: object) -> bool:
    """Whether it has the form of a file's digest."""
    return isinstance(stated, dict) and stated.keys() == digest_of(b"").keys()
