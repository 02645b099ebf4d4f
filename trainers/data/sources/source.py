"""What every source of images gives: items by place, the same each time it is asked."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

_THINGS = "(?:(?:image|img|photo|picture)s?|data|(?:data)?sets?|splits?)?"
_SPLIT = re.compile(
    rf"{_THINGS}(?:(?P<train>train(?:ing|val)?)|(?P<val>val(?:id(?:at(?:e|ion))?)?|dev(?:elopment)?)"
    rf"|(?P<test>test(?:ing)?|eval(?:uation)?|h[eo]ldout)){_THINGS}"
)
_LEFTOVERS = {
    *("__macosx", "__pycache__", "lost+found", "$recycle.bin", "system volume information"),
    *("@eadir", "@__thumb", "@recycle", "#recycle", "#snapshot"),
}
"""Folders of archives, waste bins and thumbnails that begin with no dot, in lower case."""


def split_called(name: str) -> str:
    """`train`, `val` or `test` if that is what `name` means, else an empty text.

    In any case, by all usual words (`training`, `valid`, `dev`, `eval`), with numbers or what is
    split beside them: `Validation`, `TRAIN`, `test_set`, `images_train`, `val2017`.
    """
    found = _SPLIT.fullmatch(re.sub(r"[\W\d_]+", "", name.casefold()))
    return (found and found.lastgroup) or ""


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or holds no images of the user's."""
    return name.startswith(".") or name.casefold() in _LEFTOVERS


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
