"""Plain lines for what is wrong with a name or a value."""

import difflib
import re
import reprlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from trainers.errors import printable

LONGEST_LINE = 600
"""Characters of a message: what was given is shown as far as it helps to find it."""

_LONGEST_WORD = 100

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict = 4, 4
_SHORT.maxlist = _SHORT.maxtuple = 8
_SHORT.maxstring = _SHORT.maxother = 80


def nearest(name: str, known: Mapping[str, object] | list[str], most: int = 1) -> str:
    """`"; did you mean X?"` for the closest of `known`, or an empty text when none is close.

    With `most` above 1, up to that many, of which less likeness is asked.
    """
    if len(name) > _LONGEST_WORD:
        return ""
    close = difflib.get_close_matches(name, list(known), n=most, cutoff=0.6 if most == 1 else 0.4)
    if most > 1 and close:
        return f"; nearest are {', '.join(close)}"
    return f"; did you mean {close[0]}?" if close else ""


def shown(value: object) -> str:
    """`value` as Python writes it, shortened in its middle where it is long."""
    return _SHORT.repr(value)


def brief(message: str) -> str:
    """`message` as one printable line: long words and a long whole are cut in their middle."""
    line = re.sub(
        rf"\S{{{_LONGEST_WORD + 1},}}",
        lambda word: f"{word[0][:60]}…{word[0][-30:]}",
        printable(message),
    )
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE - 200]} … {line[-190:]}"
    return line


def explain(error: ValidationError) -> list[str]:
    """One line for each problem of a pydantic error: where, what is wrong, what was given."""
    return [explained(problem) for problem in error.errors()]


def explained(problem: Mapping[str, Any]) -> str:
    """The line of one problem, as pydantic's `errors()` lists them."""
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = problem["input"]
    remedy = ""
    if problem["type"] == "string_type" and isinstance(given, (bool, int, float)):
        remedy = ": put it in quotes"
    what = "" if isinstance(given, dict) else f" (given: {shown(given)}{remedy})"
    return brief((f"{where}: " if where else "") + message + what)
