"""Where the sign of a contrast changes along an ordered factor, from the runs."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ablations.crossing import Crossing, Rung
from ablations.spec import Hypothesis
from ablations.statistics.crossover import Crossover, crossover
from ablations.verdicts.evidence import Run, pairs_of, problems_of

_NO_ARMS: Mapping[str, Sequence[str]] = types.MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """The contrast at each rung, and where it crosses 0."""

    rungs: tuple[tuple[str, float, tuple[float | None, ...]], ...]
    """level, place, and the contrast at each seed; None where a run has no number"""
    seeds: tuple[int, ...]
    level: float
    """of the confidence set, in (0, 1)"""
    found: Crossover | None
    """None where a rung has not all its numbers, or does not count"""
    reason: str
    """One line: where it crosses, or why that cannot be said."""

    def to_json(self) -> dict[str, Any]:
        """Fields by name as JSON types; a rung is an object."""
        rungs = [
            {"level": level, "place": place, "values": list(values)}
            for level, place, values in self.rungs
        ]
        return {**asdict(self), "rungs": rungs}


def crossed(
    crossing: Crossing,
    runs: Mapping[tuple[str, int], Run],
    seeds: Sequence[int],
    *,
    missed: Mapping[str, Sequence[str]] = _NO_ARMS,
    looks: int = 1,
) -> Crossed:
    """Where a contrast crosses 0, if every run of every rung has a number.

    Args:
        crossing: what is claimed.
        runs: what happened, by (arm, seed).
        seeds: those that are looked at.
        missed: of each arm that has missed a gate, why: it has not learned, and does not count.
        looks: of a sequential design, how many are planned: the set holds over all of them
            together, by Bonferroni's bound, at whichever a study stops.
    """
    alpha = crossing.alpha / looks
    values, problems = [], []
    for rung in crossing.rungs:
        contrast = _at(rung, crossing)
        pairs = pairs_of(contrast, runs, seeds)
        values.append(tuple(pair.difference for pair in pairs))
        problems += problems_of(contrast, runs, pairs)
        problems += [text for arm in rung.contrast for text in missed.get(arm, ())]
    found = None
    if problems or len(seeds) < 2:
        why = "; ".join(dict.fromkeys(problems)) or "one seed has no interval"
        reason = f"where it crosses 0 cannot be said: {why}"
    else:
        places = [rung.place for rung in crossing.rungs]
        found = crossover(np.array(values, dtype=np.float64).T, places, alpha=alpha)
        reason = _text(found, places, 1 - alpha)
    return Crossed(
        rungs=tuple(
            (rung.level, rung.place, of) for rung, of in zip(crossing.rungs, values, strict=True)
        ),
        seeds=tuple(seeds),
        level=1 - alpha,
        found=found,
        reason=reason,
    )


def _at(rung: Rung, crossing: Crossing) -> Hypothesis:
    """The contrast of a rung, as one whose pairs can be asked for."""
    return Hypothesis(
        metric=crossing.metric,
        minus_start=crossing.minus_start,
        contrast=rung.contrast,
        direction="differs",
        smallest_effect=1.0,
    )


def _text(found: Crossover, places: Sequence[float], level: float) -> str:
    first, last = places[0], places[-1]
    ends = " and ".join(f"{low:.4g} to {high:.4g}" for low, high in found.within)
    if not found.within:
        return f"it has one sign from {first:g} to {last:g}"
    where = " and ".join(f"{place:.4g}" for place in found.at)
    said = f"its mean crosses 0 at {where}" if where else "its mean has one sign"
    said += f", {100 * level:.4g} % interval {ends}"
    at_ends = found.within[0][0] <= first or found.within[-1][1] >= last
    return said + (", which reaches an end: it may lie beyond" if at_ends else "")
