"""Where starting weights lie, and what they were when a run was planned, in one text.

`model.weights` is given as a source. Before a run it is pinned: `SOURCE@sha256:DIGEST`. So the
digest counts in what a run is, travels with its configuration, and is found again in its
`config.json`. Given by hand, it makes sure that the weights are those that are meant.
"""

import re

_PIN = "@sha256:"


def pinned_to(source: str, digest: str) -> str:
    """The text for the weights at `source` with the SHA-256 `digest`, hexadecimal."""
    return f"{source}{_PIN}{digest}"


def source_of(weights: str) -> str:
    """Where the weights lie."""
    return weights.rpartition(_PIN)[0] if _PIN in weights else weights


def digest_of(weights: str) -> str:
    """What they are; empty if that is not pinned."""
    return weights.rpartition(_PIN)[2] if _PIN in weights else ""


def pin_problem(weights: str) -> str:
    """What is wrong with the text; empty if nothing is."""
    if _PIN in weights and not (
        source_of(weights) and re.fullmatch("[0-9a-f]{64}", digest_of(weights))
    ):
        return f"weights must be a source, or SOURCE{_PIN} and 64 hexadecimal digits: {weights!r}"
    return ""
