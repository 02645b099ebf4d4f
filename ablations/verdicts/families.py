"""Families of hypotheses, within which p-values are adjusted for their number."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from ablations.spec import Hypothesis
from ablations.statistics.multiplicity import holm


class Adjusted(NamedTuple):
    """The p-value of a hypothesis adjusted within its family."""

    p: float
    text: str
    """What it was adjusted for, in words that follow the number; empty if for nothing."""
    size: int
    """Hypotheses of the family, those that failed among them."""


def families_of(hypotheses: Mapping[str, Hypothesis]) -> list[list[str]]:
    """Names by family. Those that predict no change have families of their own.

    So they cost the others nothing: their p says whether what is small is also nonzero.
    """
    found: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for name, one in hypotheses.items():
        found[one.family, one.direction == "holds"].append(name)
    return list(found.values())


def adjusted(
    hypotheses: Mapping[str, Hypothesis], p: Mapping[str, float | None]
) -> dict[str, Adjusted]:
    """The adjusted p of each hypothesis.

    One that failed, whose p is None, keeps its place in its family, as p = 1: the others must not
    gain from its failure.
    """
    result: dict[str, Adjusted] = {}
    for names in families_of(hypotheses):
        counted = {name: 1.0 if (value := p[name]) is None else value for name in names}
        found = holm({name: ("", value) for name, value in counted.items()})
        size = len(names)
        text = f" after Holm over {size} hypotheses" if size > 1 else ""
        result |= {name: Adjusted(found[name], text, size) for name in names}
    return result
