"""What the name of a recorded metric says, and names in lines."""

import re
import textwrap

from trainers.errors import InputError

TOKENS = ("cls", "patch", "register", "fixed_patch")
"""Tokens that a metric name `group/token/quantity` can be about."""


def split_metric(key: str) -> tuple[str, int | None, int | None, str | None]:
    """Metric, layer, head and token of a recorded name.

    `globality/cls/gyration@2.1` is (`globality/cls/gyration`, 2, 1, `cls`); the token is the middle
    part of a name of three parts, when it is one of TOKENS.
    """
    metric, _, place = key.partition("@")
    layer, _, head = place.partition(".")
    parts = metric.split("/")
    token = parts[1] if len(parts) == 3 and parts[1] in TOKENS else None
    try:
        return metric, int(layer) if layer else None, int(head) if head else None, token
    except ValueError:
        raise InputError(f"{key!r} is not a metric name: expected name@layer.head") from None


def in_lines(text: str, width: int, most: int = 4) -> list[str]:
    """Text in at most `most` lines of `width` letters, also broken after slashes, underscores."""
    spaced = text.replace("_", "_ ").replace("/", "/ ")
    lines = textwrap.wrap(spaced, width, max_lines=most, placeholder="…")
    return [re.sub("([_/]) ", r"\1", line) for line in lines]
