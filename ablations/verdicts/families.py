"""Families of hypotheses, within which p-values are adjusted for their number."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ablations.spec import Hypothesis, Multiplicity
from ablations.statistics.flips import Floats
from ablations.statistics.max_t import step_down_p
from ablations.statistics.multiplicity import benjamini_hochberg, fixed_sequence, holm_p


class Adjusted(NamedTuple):
    """The p-value of a hypothesis adjusted within its family."""

    p: float
    text: str
    """What it was adjusted for, in words that follow the number; empty if for nothing."""
    size: int
    """Hypotheses of the family, those that failed among them."""


def families_of(hypotheses: Mapping[str, Hypothesis]) -> list[list[str]]:
    """Names by family, in the order given; the secondary ones are one family.

    Those that predict no change have families of their own. So they cost the others nothing: their
    p says whether what is small is also nonzero.
    """
    found: dict[tuple[str, bool, bool], list[str]] = defaultdict(list)
    for name, one in hypotheses.items():
        family = "" if one.secondary else one.family
        found[family, one.secondary, one.direction == "holds"].append(name)
    return list(found.values())


def adjusted(
    hypotheses: Mapping[str, Hypothesis],
    differences: Mapping[str, Sequence[float]],
    p: Mapping[str, float | None],
    multiplicity: Multiplicity,
) -> dict[str, Adjusted]:
    """The adjusted p of each hypothesis.

    One that failed, whose p is None, keeps its place in its family: the others must not gain from
    its failure. By Holm and the like it counts as p = 1; by max-T, which would need its
    differences, alpha is shared among all m of the family and its share is lost, so that others
    have m / (m - failed) times the p of theirs.

    Args:
        hypotheses: all of a study, by name; a fixed sequence is in their order.
        differences: of each that has not failed, at the same seeds.
        p: of each, not adjusted; None for one that failed.
        multiplicity: by which method.
    """
    result: dict[str, Adjusted] = {}
    for names in families_of(hypotheses):
        size = len(names)
        there = [name for name in names if p[name] is not None]
        by_flips = all(hypotheses[name].by_signs for name in there)
        first = hypotheses[names[0]]
        if first.secondary:
            found, method = benjamini_hochberg(_counted(names, p)), "Benjamini-Hochberg"
        elif multiplicity.by == "fixed-sequence" and first.direction != "holds":
            found, method = fixed_sequence(_counted(names, p)), "a fixed sequence"
        elif multiplicity.by == "max-t" and by_flips and there:
            rows = step_down_p(np.array([differences[name] for name in there]))
            lost = dict(zip(there, np.minimum(rows * size / len(there), 1.0), strict=True))
            found, method = np.array([lost.get(name, 1.0) for name in names]), "max-T"
        else:
            found, method = holm_p(_counted(names, p)), "Holm"
        text = f" after {method} over {size} hypotheses" if size > 1 else ""
        result |= {
            name: Adjusted(float(value), text, size)
            for name, value in zip(names, found, strict=True)
        }
    return result


def _counted(names: Sequence[str], p: Mapping[str, float | None]) -> Floats:
    return np.array([1.0 if (value := p[name]) is None else value for name in names])
