"""What objects of a store are called."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """An object of a store."""

    key: str
    size: int
    """bytes"""
    changed: float
    """when it was put, in seconds since 1970 by the clock of the store: compare with no other"""


def checked(key: str) -> str:
    """`key`, which has no empty and no hidden names. Raises ValueError."""
    if not key or any(not part or part.startswith(".") for part in key.split("/")):
        raise ValueError(f"not a key of a store: {key!r}")
    return key
