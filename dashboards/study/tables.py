"""Every table of a study, by name: those of its verdicts, and the numbers of each figure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ablations.registration import ArmFacts
from dashboards.figures.compared import compared, end_point
from dashboards.figures.crossings import crossing_claims
from dashboards.figures.curves import collapse_metrics, mean_curves
from dashboards.figures.layers import by_layer
from dashboards.study.maps import COLUMNS, every_sheet, rows_of
from dashboards.tables.derived import interval_shown
from dashboards.tables.reading import CURVES, StudyRun
from trainers.config import leaves

Cell = str | int | float | None


class Table(NamedTuple):
    """Columns and rows; None where there is no value."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def every_table(study: StudyRun, verdicts: Mapping[str, Any]) -> dict[str, Table]:
    """All tables by name."""
    makers: dict[str, Callable[[], Table]] = {
        "claims": lambda: _claims(verdicts),
        "verdicts": lambda: _verdicts(verdicts),
        "gates": lambda: _gates(verdicts),
        **({"crossings": lambda: _crossings(verdicts)} if crossing_claims(verdicts) else {}),
        "arms": lambda: _arms(study),
        **({"boundary": lambda: _looks(verdicts)} if study.design else {}),
        "paired_seeds": lambda: _pairs(verdicts),
        "learning_curves": lambda: _curves(study, CURVES),
        "globality_by_layer": lambda: _layers(study),
        "collapse_panel": lambda: _curves(study, collapse_metrics(study)),
    }
    sheets = {
        name: Table(COLUMNS, rows_of(sheet)) for name, sheet in every_sheet(study.maps).items()
    }
    return {name: make() for name, make in makers.items()} | sheets


def _claims(verdicts: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = [
        [
            name,
            entry["claim"]["text"],
            entry["verdict"]["label"],
            entry["stated"]["word"],
            ", ".join(entry["claim"]["hypotheses"]),
        ]
        for name, entry in verdicts["claims"].items()
    ]
    return Table(["claim", "text", "verdict", "stated", "hypotheses"], rows)


def _crossings(verdicts: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for name in crossing_claims(verdicts):
        crossed = verdicts["claims"][name]["crossed"]
        rows += [
            [name, rung["level"], rung["place"], seed, value]
            for rung in crossed["rungs"]
            for seed, value in zip(crossed["seeds"], rung["values"], strict=True)
        ]
    return Table(["claim", "level", "place", "seed", "contrast"], rows)


def _verdicts(verdicts: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for name, entry in verdicts["hypotheses"].items():
        hypothesis, verdict = entry["hypothesis"], entry["verdict"]
        ends, level = interval_shown(entry)
        rows.append(
            [
                name,
                compared(hypothesis),
                end_point(hypothesis) + (", minus step 0" if hypothesis["minus_start"] else ""),
                hypothesis["direction"],
                hypothesis["smallest_effect"],
                verdict["n"],
                verdict["mean"],
                *(ends or (None, None)),
                round(level, 6),
                verdict["p"],
                verdict["p_adjusted"],
                verdict["label"],
                entry["stated"]["word"],
            ]
        )
    columns = [
        "hypothesis", "compared", "end point", "predicted", "smallest effect", "seeds",
        "mean difference", "interval from", "interval to", "level", "p", "adjusted p", "verdict",
        "stated",
    ]  # fmt: skip
    return Table(columns, rows)


def _gates(verdicts: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = [
        [
            name,
            arm,
            entry["gate"]["metric"],
            entry["gate"]["at_least"],
            measured["mean"],
            "passed" if measured["passed"] else "missed",
        ]
        for name, entry in verdicts["gates"].items()
        for arm, measured in entry["arms"].items()
    ]
    return Table(["gate", "arm", "metric", "at least", "measured mean", "result"], rows)


def _arms(study: StudyRun) -> Table:
    base = dict(leaves(study.entry.config))
    rows = []
    for arm in study.arms:
        facts = study.entry.arms.get(arm, ArmFacts())
        change = study.entry.resolved.arms[arm].items()
        changes = "; ".join(f"{knob}: {base.get(knob)} → {value}" for knob, value in change)
        sizes = [facts.parameters, facts.gigaflops_per_image]
        rows.append([arm, changes, "; ".join(facts.confounds), *sizes])
    columns = ["arm", "changes", "else differs", "parameters", "gigaflops an image"]
    return Table(columns, rows)


def _looks(verdicts: Mapping[str, Any]) -> Table:
    fields = ["seeds", "p", "level", "level_first", "p_equivalence", "level_equivalence", "label"]
    rows: list[list[Cell]] = [
        [name, *(look[field] for field in fields)]
        for name, entry in verdicts["hypotheses"].items()
        for look in entry["verdict"]["looks"]
    ]
    columns = [
        "hypothesis", "seeds", "p", "boundary", "boundary of the first", "p of equivalence",
        "boundary of equivalence", "verdict",
    ]  # fmt: skip
    return Table(columns, rows)


def _pairs(verdicts: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = [
        [name, pair["seed"], pair["arm"], pair["against"], pair["difference"]]
        for name, entry in verdicts["hypotheses"].items()
        for pair in entry["verdict"]["pairs"]
    ]
    return Table(["hypothesis", "seed", "arm", "compared with", "difference"], rows)


def _curves(study: StudyRun, metrics: Sequence[str]) -> Table:
    rows: list[list[Cell]] = [
        [metric, arm, int(step), float(value), seeds]
        for metric in metrics
        for arm, ((steps, values), seeds) in mean_curves(study, metric).items()
        for step, value in zip(steps, values, strict=True)
    ]
    return Table(["metric", "arm", "step", "mean", "seeds"], rows)


def _layers(study: StudyRun) -> Table:
    rows: list[list[Cell]] = [
        [arm, token, "step 0" if when == "start" else "last step", layer, value]
        for (arm, token, when), values in by_layer(study).items()
        for layer, value in values.items()
    ]
    return Table(["arm", "token", "when", "layer", "gyration"], rows)
