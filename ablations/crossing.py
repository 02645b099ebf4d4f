"""Contrasts along an ordered factor: where their sign changes, once that is claimed."""

import itertools
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_LARGEST, _CLOSEST = 1e9, 1e-9
"""Largest place, and the least step between two of them over all their length."""

Along = dict[str, float]
"""Levels of one factor, in order, each with its place, a number that ascends."""


class Rung(BaseModel):
    """A contrast at one level of an ordered factor."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    level: str
    place: float
    contrast: dict[str, float]
    """weights of arms"""


class Crossing(BaseModel):
    """What is claimed to be below 0 at the first of some rungs and above 0 at the last."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    metric: str
    contrast: dict[str, float]
    """weights at the baseline of the factor, of which those of the rungs are the same"""
    minus_start: bool = False
    alpha: float
    rungs: Annotated[tuple[Rung, ...], Field(min_length=2)]


def problem_of_along(along: Along) -> str:
    """What is wrong with levels and places, in words that follow `along`; empty if nothing is."""
    places = list(along.values())
    if any(abs(place) > _LARGEST for place in places):
        return f"must give its levels numbers of {_LARGEST:g} at most, got {along}"
    if len(places) < 2:
        return f"needs 2 levels or more, in order, such as {{grid_4: 4, baseline: 8}}, got {along}"
    if any(after <= before for before, after in itertools.pairwise(places)):
        return f"must give its levels numbers that ascend, got {along}"
    length = places[-1] - places[0]
    if any(after - before < length * _CLOSEST for before, after in itertools.pairwise(places)):
        return f"has levels whose numbers are as good as the same, got {along}"
    return ""


def trend_weights(along: Along) -> dict[str, float]:
    """Of each level its weight in the change from the first place to the last, along the
    least-squares line through all of them; for two levels -1 and 1."""
    first, *_, last = along.values()
    places = {level: (place - first) / (last - first) for level, place in along.items()}
    centre = sum(places.values()) / len(places)
    squares = sum((place - centre) ** 2 for place in places.values())
    weights = {level: (place - centre) / squares for level, place in places.items()}
    # The middle of an odd number of even steps has none, but for rounding.
    return {level: 0.0 if abs(weight) < 1e-12 else weight for level, weight in weights.items()}
