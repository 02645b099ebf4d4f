"""Factors and levels become cells: one arm for each combination."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from ablations.library import Known
from ablations.spec import BASELINE, Ablation, Hypothesis, name_problem
from ablations.study.arms import declared_arms
from ablations.study.schema import MOST_ARMS, Change
from trainers.config import shown

Levels = dict[str, tuple[Change, Ablation | None]]
"""Of one factor: each level's name, change, and the ablation that it comes from if not inline."""


def factors_of(factorial: object, known: Mapping[str, Known], problems: list[str]) -> list[Levels]:
    """The levels of each factor, the baseline first, as far as they can be read. Adds problems.

    No two levels of a factorial have the same name, and so no two cells.
    """
    factors: list[Levels] = []
    seen = {BASELINE}
    for number, factor in enumerate(factorial if isinstance(factorial, list) else [], start=1):
        entries = factor if isinstance(factor, list) else []
        begins = entries[:1] == [BASELINE]
        if not begins:
            problems.append(
                f"factorial: factor {number} must be a list of levels that begins with "
                f"{BASELINE}, got {shown(factor)}"
            )
        levels: Levels = {BASELINE: ({}, None)}
        for entry in entries[begins:]:
            if isinstance(entry, dict) and len(entry) != 1:
                problems.append(
                    f"factorial: a level of factor {number} must be one `name: {{knob: value}}`, "
                    f"got {' and '.join(entry) or 'an empty mapping'}; make each level an item of "
                    "the list"
                )
            for name, change, found in declared_arms([entry], known, problems):
                if not name or "+" in name:
                    problems.append(
                        f"factorial: level {name!r} of factor {number} must have a name without +, "
                        "which joins the names of levels; give it another"
                    )
                elif problem := name_problem(name):
                    problems.append(f"factorial: level {name!r} of factor {number}: {problem}")
                elif name in seen:
                    problems.append(
                        f"factorial: level {name} of factor {number} is given twice, or the name "
                        "of the base; every level of every factor needs a name of its own"
                    )
                else:
                    levels[name] = change, found
                seen.add(name)
        factors.append(levels)
    if (cells := math.prod(map(len, factors))) > MOST_ARMS:
        problems.append(f"factorial: has {cells:,} cells, {MOST_ARMS:,} is the most")
        return []
    return factors


def cells_of(factors: Sequence[Levels]) -> dict[str, tuple[str, ...]]:
    """Of each combination of levels its name and levels; the first is the baseline."""
    if not factors:
        return {}
    return {
        "+".join(level for level in levels if level != BASELINE) or BASELINE: levels
        for levels in itertools.product(*factors)
    }


def cell_arms(
    factors: Sequence[Levels], problems: list[str]
) -> Iterator[tuple[str, Change, dict[str, Ablation]]]:
    """Each cell but the baseline, with its change and the ablations that it combines, by level."""
    for name, cell in cells_of(factors).items():
        change: Change = {}
        combined = {}
        for levels, level in zip(factors, cell, strict=True):
            more, found = levels[level]
            twice = [knob for knob in more if knob in change and change[knob] != more[knob]]
            if twice:
                problems.append(
                    f"cell {name}: two of its levels change {', '.join(twice)}; levels of "
                    "different factors must change different knobs"
                )
            change |= more
            if found:
                combined[level] = found
        if name != BASELINE:
            yield name, change, combined


def over_cells(hypothesis: Hypothesis, cells: Mapping[str, tuple[str, ...]]) -> Hypothesis:
    """The same with `over: cells` spelt out as a weight for each cell, in its control too.

    An interaction is spelt out as the difference of two differences, each of means over cells.
    """
    if hypothesis.interaction:
        weights = _interaction(hypothesis.interaction, cells)
        return hypothesis.model_copy(update={"contrast": weights})
    if hypothesis.over != "cells":
        return hypothesis
    level, other = hypothesis.contrast
    factor = factor_of(level, other, cells)
    assert factor is not None, "was checked before"
    control = hypothesis.control
    named = (control,) if isinstance(control, str) else tuple(control)
    if not isinstance(control, dict) and set(named) <= {cell[factor] for cell in cells.values()}:
        control = _weights(named, factor, cells)
    weights = _weights((level, other), factor, cells)
    return hypothesis.model_copy(update={"contrast": weights, "control": control})


def _interaction(
    pairs: tuple[tuple[str, str], tuple[str, str]], cells: Mapping[str, tuple[str, ...]]
) -> dict[str, float]:
    factors = [factor_of(*pair, cells) for pair in pairs]
    signs: dict[str, int] = {}
    for name, levels in cells.items():
        at = [levels[factor] for factor in factors if factor is not None]
        if all(level in pair for level, pair in zip(at, pairs, strict=True)):
            signs[name] = math.prod(
                1 if level == pair[0] else -1 for level, pair in zip(at, pairs, strict=True)
            )
    return {name: 4 * sign / len(signs) for name, sign in signs.items()}


def _weights(
    levels: Sequence[str], factor: int, cells: Mapping[str, tuple[str, ...]]
) -> dict[str, float]:
    """Of each cell its weight in the mean over those of the first level, less the second's."""
    weights: dict[str, float] = {}
    for sign, wanted in zip((1, -1), levels, strict=False):
        chosen = [name for name, levels in cells.items() if levels[factor] == wanted]
        weights |= {name: sign / len(chosen) for name in chosen}
    return weights


def factor_of(level: str, other: str, cells: Mapping[str, tuple[str, ...]]) -> int | None:
    """The factor that has both levels, at which one is not the baseline."""
    for factor in range(len(next(iter(cells.values()), ()))):
        levels = {cell[factor] for cell in cells.values()}
        if {level, other} <= levels and {level, other} != {BASELINE}:
            return factor
    return None
