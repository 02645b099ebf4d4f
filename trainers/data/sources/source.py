"""What every source of images gives: items by place, the same each time it is asked."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

SPLITS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
"""What splits are called in the wild, and here."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An image that is not in the data set, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image as its source has it: encoded, not yet looked at.

    `name` is unique in its source; `label` is empty without one; `split` is train, val, test or
    empty.
    """

    name: str
    label: str
    split: str
    image: bytes


class Source(Protocol):
    """A fixed sequence of items.

    `name` tells sources apart, in words for a person. `fingerprint` of a range of places changes
    when an item in it may have changed; it must be cheap. `items` yields one item, or the reason
    why there is none, for each place of the range, in order. Raises DataError when the source as a
    whole cannot be read any more.
    """

    name: str

    def __len__(self) -> int:
        """How many items there are, broken ones included."""

    def fingerprint(self, places: range) -> str:
        """Changes when what `items(places)` gives may have changed."""

    def items(self, places: range) -> Iterator[Item | Skipped]:
        """The items at these places, in order."""
