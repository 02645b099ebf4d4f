"""The claims of a study, each with the forest of its hypotheses."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ablations.verdicts.evidence import Pair, control_pairs
from dashboards.figures.rows import Row, Scale, row_of, scale_for
from dashboards.tables.reading import StudyRun


class Shown(NamedTuple):
    """A hypothesis as its report shows it."""

    name: str
    number: int
    """from 1, in the order in which they were declared"""
    entry: Mapping[str, Any]
    """as in `verdicts.json`"""
    row: Row
    control: Row | None
    """None where none was declared, or it has no numbers"""
    control_differences: Mapping[int, float | None]
    """of the control at each seed; empty where none was declared"""
    described: str
    """what the rows show, in words"""
    arms: Sequence[int]
    """that it compares, by their places from 1"""


class Asked(NamedTuple):
    """A claim and its hypotheses; or, without a name, those that no claim names."""

    name: str
    entry: Mapping[str, Any] | None
    hypotheses: list[Shown]


def shown_hypotheses(study: StudyRun, verdicts: Mapping[str, Any]) -> dict[str, Shown]:
    """Each hypothesis by name, in the order in which they were declared."""
    shown = {}
    for number, (name, entry) in enumerate(verdicts["hypotheses"].items(), 1):
        pairs = _control_pairs(study, name, entry)
        row, control = _row(entry), _control(pairs, entry)
        alpha = entry["hypothesis"]["alpha"]
        words = [_described(f"{name}, {entry['verdict']['label']}", row, alpha)]
        words += [_described("its control", control, alpha)] if control else []
        differences = {pair.seed: pair.difference for pair in pairs}
        arms = [study.arms.index(arm) + 1 for arm in study.hypotheses[name].weights]
        said = "; ".join(words)
        shown[name] = Shown(name, number, entry, row, control, differences, said, arms)
    return shown


def asked(verdicts: Mapping[str, Any], shown: Mapping[str, Shown]) -> list[Asked]:
    """Every claim with its hypotheses, and last the hypotheses of none, if there are any."""
    claims = [
        Asked(name, entry, [shown[one] for one in entry["claim"]["hypotheses"]])
        for name, entry in verdicts["claims"].items()
    ]
    named = {one.name for claim in claims for one in claim.hypotheses}
    others = [one for name, one in shown.items() if name not in named]
    return [*claims, *([Asked("", None, others)] if others else [])]


def forest_scale(shown: Mapping[str, Shown]) -> Scale:
    """One scale for all rows of a report."""
    return scale_for([row for one in shown.values() for row in (one.row, one.control) if row])


def _row(entry: Mapping[str, Any]) -> Row:
    verdict, s = entry["verdict"], entry["hypothesis"]["smallest_effect"]
    return row_of(
        verdict["label"],
        entry["hypothesis"]["direction"],
        [
            (pair["difference"] / s, f"seed {pair['seed']}: {pair['difference']:.4g}")
            for pair in verdict["pairs"]
            if pair["difference"] is not None
        ],
        None if verdict["mean"] is None else verdict["mean"] / s,
        _over(verdict["interval"], s),
        _over(verdict["interval_equivalence"], s),
    )


def _control_pairs(study: StudyRun, name: str, entry: Mapping[str, Any]) -> Sequence[Pair]:
    hypothesis, seeds = study.hypotheses[name], entry["verdict"]["seeds"]
    return control_pairs(hypothesis, study.runs, seeds) if hypothesis.control else ()


def _control(pairs: Sequence[Pair], entry: Mapping[str, Any]) -> Row | None:
    found, s = entry["verdict"]["control"], entry["hypothesis"]["smallest_effect"]
    if not found or found["mean"] is None:
        return None
    ends = _over(found["interval"], s)
    return Row(
        seeds=[
            (pair.difference / s, f"seed {pair.seed}: {pair.difference:.4g}")
            for pair in pairs
            if pair.difference is not None
        ],
        mean=found["mean"] / s,
        intervals=[(ends, 2)] if ends else [],
    )


def _over(ends: list[float] | None, s: float) -> tuple[float, float] | None:
    return (ends[0] / s, ends[1] / s) if ends else None


def _described(what: str, row: Row, alpha: float) -> str:
    if row.mean is None:
        return f"{what}: no finished pair"
    said = f"{what}: mean {row.mean:.3g} smallest effects"
    for ((low, high), _), level in zip(row.intervals, (1 - alpha, 1 - 2 * alpha), strict=False):
        said += f", {100 * level:.3g} % interval {low:.3g} to {high:.3g}"
    return said
