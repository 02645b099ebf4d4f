"""The command list: what can be named."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.options import AblationsOption
from orchestrator.cli.rendering import make_console
from trainers.errors import InputError


def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="ablations|recipes|datasets|metrics|studies|knobs", show_default=False
        ),
    ],
    ablations: AblationsOption = None,
) -> None:
    """List what can be named in a study: ablations, recipes, datasets, metrics, studies, knobs."""
    listings = {
        "ablations": lambda: _list_ablations(ablations or []),
        "recipes": _list_recipes,
        "datasets": _list_datasets,
        "metrics": _list_metrics,
        "studies": _list_studies,
        "knobs": _list_knobs,
    }
    if what not in listings:
        raise InputError(f"list {what}: no such list (allowed: {', '.join(listings)})")
    if ablations and what != "ablations":
        raise InputError(f"list {what}: --ablations belongs to `list ablations` alone")
    make_console().print(listings[what]())


def _list_ablations(paths: list[Path]) -> Table:
    from ablations.library import library

    table = Table("arm", "changes", "claim", "from")
    table.columns[0].no_wrap = True
    for known in library(paths).values():
        found = known.load()
        needs = [f"(needs {knob}: {value})" for knob, value in found.base.items()]
        for arm, declared in found.arms.items():
            changes = [f"{knob}: {value}" for knob, value in declared.change.items()]
            cells = (arm, "\n".join([*changes, *needs]), found.claim, known.origin)
            table.add_row(*(escape(cell) for cell in cells))
    return table


def _list_recipes() -> Table:
    import importlib

    import ablations.recipes
    from ablations.library import names_in

    table = Table("recipe", "what it is")
    for name in names_in(ablations.recipes):
        text = importlib.import_module(f"ablations.recipes.{name}").__doc__ or ""
        table.add_row(name, escape(text.splitlines()[0]))
    return table


def _list_datasets() -> Table:
    table = Table("data set", "what it is")
    table.add_row("digits", "1,797 scanned digits, 8×8 grey, 10 labels; embedded (scikit-learn)")
    table.add_row(
        "photographs",
        "2,464 crops of 11 photographs, 48×48, which one is the label; embedded (scikit-image)",
    )
    table.add_row("PATH", "a folder of images of any sizes and modes; sub-folders are labels")
    table.add_row("DIR", "what `dinolab ingest SOURCE --out DIR` made, local or s3://, gs://")
    return table


def _list_metrics() -> Table:
    from trainers.metrics import METRICS

    table = Table("metric", "meaning")
    for name, text in METRICS.items():
        table.add_row(escape(name), escape(text))
    return table


def _list_studies() -> Table:
    import ablations.studies

    table = Table("study", "what it asks")
    for path in sorted(Path(next(iter(ablations.studies.__path__))).glob("*.yaml")):
        comments = [
            line.removeprefix("# ")
            for line in path.read_text().splitlines()
            if line.startswith("# ") and "$schema" not in line
        ]
        table.add_row(str(path), escape(comments[0] if comments else ""))
    return table


def _list_knobs() -> Table:
    from trainers.config import knobs

    table = Table("knob", "default", "allowed", "unit", "meaning (source)")
    table.columns[0].no_wrap = True
    table.columns[-1].min_width = 44
    for knob in knobs():
        allowed = knob.allowed if knob.type in ("choice", "bool") else f"{knob.type} {knob.allowed}"
        cells = (
            knob.name, str(knob.default), allowed.strip(), knob.unit,
            f"{knob.description} ({knob.source})",
        )  # fmt: skip
        table.add_row(*(escape(cell) for cell in cells))
    return table
