"""Plain lines for what is wrong with a name or a value."""

import difflib
from collections.abc import Mapping

from pydantic import ValidationError


def nearest(name: str, known: Mapping[str, object] | list[str], most: int = 1) -> str:
    """`"; did you mean X?"` for the closest of `known`, or an empty text when none is close.

    With `most` above 1, up to that many, of which less likeness is asked.
    """
    close = difflib.get_close_matches(name, list(known), n=most, cutoff=0.6 if most == 1 else 0.4)
    if most > 1 and close:
        return f"; nearest are {', '.join(close)}"
    return f"; did you mean {close[0]}?" if close else ""


def explain(error: ValidationError) -> list[str]:
    """One line for each problem of a pydantic error: where, what is wrong, what was given."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        given = problem["input"]
        shown = "" if isinstance(given, dict) else f" (given: {given!r})"
        lines.append((f"{where}: " if where else "") + message + shown)
    return lines
