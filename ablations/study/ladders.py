"""Contrasts along the levels of a factor are spelt out as weights of its cells."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from ablations.crossing import Crossing, Rung, problem_of_along, trend_weights
from ablations.hypothesis import CROSSES, contrast_text
from ablations.spec import BASELINE, Claim, Hypothesis, name_problem

Cells = Mapping[str, tuple[str, ...]]
"""Of each combination of levels its name and levels."""


def without_crossings(raw: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A study file with each hypothesis that crosses as one that rises, and their names.

    What crosses is in all else a change along a factor, and is checked as one.
    """
    declared = raw.get("hypotheses")
    bodies = declared if isinstance(declared, dict) else {}
    crossing = tuple(
        name
        for name, body in bodies.items()
        if isinstance(body, dict) and body.get("direction") == CROSSES
    )
    changed = {name: {**bodies[name], "direction": "rises"} for name in crossing}
    return ({**raw, "hypotheses": {**bodies, **changed}} if crossing else dict(raw)), crossing


def check_crossings(raw: Mapping[str, Any], crossing: Iterable[str]) -> list[str]:
    """Problems of hypotheses that cross, by name, with what else the file has."""
    declared = raw.get("claims")
    claims = declared if isinstance(declared, dict) else {}
    lines = []
    for name in crossing:
        along = raw["hypotheses"][name].get("along")
        if not along:
            lines.append(
                f"hypothesis {name}: {CROSSES} needs along: levels of one factor in order, each "
                "with a number, such as {grid_4: 4, baseline: 8}"
            )
        halves = [f"{name}:{level}" for level in (along if isinstance(along, dict) else ())]
        lines += [
            f"{kind} {half}: is what {name}, which crosses, is made of; give it another name"
            for half in halves
            for kind, names in (("hypothesis", raw["hypotheses"]), ("claim", claims))
            if half in names
        ]
        lines += [
            f"hypothesis {half}, of which {name} is made: {problem}"
            for half in halves
            if (problem := name_problem(half))
        ]
        if name in claims:
            lines.append(
                f"claim {name}: is the name of a hypothesis that crosses, too, which is a claim of "
                "its own; give it another"
            )
        for claim, body in claims.items():
            named = body.get("hypotheses") if isinstance(body, dict) else None
            if isinstance(named, list) and name in named:
                lines.append(
                    f"claim {claim}: hypothesis {name} crosses, which is a claim of its own; leave "
                    "it out"
                )
    return lines


def check_along(along: object, names: Iterable[str], cells: Cells) -> list[str]:
    """Problems of levels along which a contrast of some arms is taken, as the file states them."""
    places = list(along.values()) if isinstance(along, dict) else []
    is_good = bool(places) and all(type(one) in (int, float) for one in places)
    if not isinstance(along, dict) or not is_good or problem_of_along(along):
        # It has a line already.
        return []
    factor = _factor_with(along, cells)
    levels = ", ".join(along)
    if factor is None:
        return [f"no factor of the factorial has the levels {levels}"]
    return [
        f"{name} is no cell at the {BASELINE} of the factor with the levels {levels}: what is "
        "compared is named there, and taken at each of them"
        for name in dict.fromkeys(names)
        if name not in cells or cells[name][factor] != BASELINE
    ]


def along_factor(hypothesis: Hypothesis, cells: Cells) -> Hypothesis:
    """The same with its change along a factor spelt out as a weight for each cell."""
    if not hypothesis.along:
        return hypothesis
    trend = trend_weights(hypothesis.along)

    def changed(weights: Mapping[str, float]) -> dict[str, float]:
        return {
            cell: weight * at
            for level, at in trend.items()
            if at
            for cell, weight in _at(weights, level, hypothesis, cells).items()
        }

    control: dict[str, float] | str = ""
    if hypothesis.control:
        # With what it is compared with, since weights that are spelt out have both signs.
        first, second = hypothesis.control_sides
        whole = {arm: first.get(arm, 0.0) - second.get(arm, 0.0) for arm in {**first, **second}}
        control = changed({arm: weight for arm, weight in whole.items() if weight})
    weights = changed(hypothesis.weights)
    return hypothesis.model_copy(update={"contrast": weights, "control": control})


def check_spelt(hypotheses: Mapping[str, Hypothesis]) -> list[str]:
    """Problems of hypotheses as they are spelt out, which is how they are registered."""
    lines = []
    for name, one in hypotheses.items():
        try:
            Hypothesis.model_validate_json(one.model_dump_json())
        except ValidationError as error:
            said = [found["msg"].removeprefix("Value error, ") for found in error.errors()]
            lines += [f"hypothesis {name}, along its factor: {message}" for message in said]
    return lines


def spelt_crossings(
    hypotheses: Mapping[str, Hypothesis], crossing: Iterable[str], cells: Cells
) -> tuple[dict[str, Hypothesis], dict[str, Claim]]:
    """All hypotheses, with two for each that crosses, and the claims that those decide together.

    The two are of the first rung and of the last. The place where the sign changes rests on all
    rungs, so both need the arms of all.
    """
    found: dict[str, Hypothesis] = {}
    claims: dict[str, Claim] = {}
    for name, one in hypotheses.items():
        if name not in crossing:
            found[name] = one
            continue
        rungs = [
            Rung(level=level, place=place, contrast=_at(one.weights, level, one, cells))
            for level, place in one.along.items()
        ]
        halves = {"falls": rungs[0], "rises": rungs[-1]}
        for direction, rung in halves.items():
            half = f"{name}:{rung.level}"
            control = one.control and _at(one.control_weights, rung.level, one, cells)
            found[half] = one.model_copy(
                update={
                    "along": {},
                    "contrast": rung.contrast,
                    "control": control,
                    "direction": direction,
                    "rungs": tuple(dict.fromkeys(arm for one in rungs for arm in one.contrast)),
                }
            )
        claims[name] = Claim(
            text=one.claim
            or f"{contrast_text(one.weights)}, {one.metric}: crosses 0 from {rungs[0].level} to "
            f"{rungs[-1].level}.",
            hypotheses=tuple(f"{name}:{rung.level}" for rung in halves.values()),
            crossing=Crossing(
                metric=one.metric,
                contrast=one.weights,
                minus_start=one.minus_start,
                alpha=one.alpha,
                rungs=tuple(rungs),
            ),
        )
    return found, claims


def _factor_with(levels: Iterable[str], cells: Cells) -> int | None:
    """The factor that has all these levels."""
    factors = range(len(next(iter(cells.values()), ())))
    return next((i for i in factors if {*levels} <= {one[i] for one in cells.values()}), None)


def _at(
    weights: Mapping[str, float], level: str, hypothesis: Hypothesis, cells: Cells
) -> dict[str, float]:
    """Weights of cells at the baseline of its factor, of the same cells at a level of it."""
    factor = _factor_with(hypothesis.along, cells)
    assert factor is not None, "was checked before"
    name_of = {levels: name for name, levels in cells.items()}
    return {
        name_of[(*cells[arm][:factor], level, *cells[arm][factor + 1 :])]: weight
        for arm, weight in weights.items()
    }
