"""The command compare: two studies, or two measured models, side by side."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.cli.options import (
    DEFAULT_ROOT,
    JsonOption,
    RootOption,
    absolute_root,
    at_home,
    name_of_study,
)
from orchestrator.cli.rendering import make_console, print_json
from trainers.errors import InputError, printable
from trainers.system.store import Store, open_store

if TYPE_CHECKING:
    from dashboards.figures.sheets import Sheet

PICTURES = (".png", ".pdf", ".svg")
"""Endings of the file of pictures."""

_WHAT = "Name of a study in the run root, or its file, or a folder that `dinolab measure` wrote."


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=_WHAT, show_default=False)],
    second: Annotated[str, typer.Argument(metavar="B", help=_WHAT, show_default=False)],
    root: RootOption = DEFAULT_ROOT,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Writes where [CLS] looks in both, on the same images, to FILE: .png, "
            ".pdf or .svg.",
            show_default=False,
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Show two studies of a run root, or two measured models, side by side.

    What differs in what they state, and the effects of each with its own interval. Nothing is
    judged anew, and while runs of a study are missing it shows what `dinolab watch` does.
    """
    from dashboards.measurement.compared import is_measured

    console = make_console()
    folders = [at_home(Path(one)) for one in (first, second)]
    measured = [is_measured(folder) for folder in folders]
    if pictures is not None:
        pictures = at_home(pictures)
        _check_pictures(pictures)
    if all(measured):
        if pictures is not None:
            from dashboards.measurement.maps import compared_models

            _draw(compared_models(*folders), pictures)
        _measurements(folders, console, as_json=json_)
    elif any(measured):
        model, other = (first, second) if measured[0] else (second, first)
        raise InputError(
            f"{printable(model)} is a measured model and {printable(other)} is not: give two "
            "studies, or two folders that `dinolab measure` wrote"
        )
    else:
        store = open_store(absolute_root(root, console))
        first, second = (name_of_study(one, store) for one in (first, second))
        if pictures is not None:
            from dashboards.study.compared import compared_maps
            from dashboards.tables.reading import read_study

            _draw(compared_maps(read_study(store, first), read_study(store, second)), pictures)
        _studies(store, first, second, console, as_json=json_)


def _check_pictures(file: Path) -> None:
    if file.suffix not in PICTURES:
        raise InputError(
            f"--pictures {printable(str(file))} is of no form that is drawn (allowed: "
            f"{', '.join(PICTURES)})"
        )


def _draw(sheet: "Sheet", file: Path) -> None:
    """Write it into a file, whole or not at all."""
    from dashboards.figures.sheets import sheet_file
    from trainers.system.atomic import replace

    content = sheet_file(sheet, file.suffix[1:])
    try:
        replace(file, content)
    except OSError as error:
        raise InputError(
            f"--pictures {printable(str(file))} cannot be written: {error.strerror or error}"
        ) from error


def _studies(store: Store, first: str, second: str, console: Console, *, as_json: bool) -> None:
    from dashboards.tables.compared import compared_studies
    from dashboards.tables.watched import Told

    found = compared_studies(store, first, second)
    if as_json:
        print_json({"studies": [first, second], **dataclasses.asdict(found)})
        return
    _show_differences(found.differs, console)
    for name in found.silent:
        console.print(f"{printable(name)}: runs are missing, and before that nothing is shown")

    def cell(one: Told | None) -> str:
        return "–" if one is None else f"{one.label.upper() or 'not decided'}\n{one.text}"

    table = Table("hypothesis", printable(first), printable(second))
    for column in table.columns:
        column.overflow = "fold"
    for name, (one, other) in found.hypotheses.items():
        table.add_row(printable(name), cell(one), cell(other))
    if found.hypotheses:
        console.print(table)


def _measurements(folders: list[Path], console: Console, *, as_json: bool) -> None:
    from dashboards.measurement.compared import compared_measurements
    from dashboards.measurement.table import KINDS, MEASURES, number

    found = compared_measurements(*folders)
    names = [printable(str(folder)) for folder in folders]
    if as_json:
        print_json({"measured": names, **dataclasses.asdict(found)})
        return
    _show_differences(found.differs, console)
    table = Table("metric, over the primary layers", *names, "B − A")
    for column in table.columns:
        column.overflow = "fold"
    for name, (one, other) in found.metrics.items():
        group, _, rest = name.partition("/")
        if group in KINDS and rest.partition("/")[2] in MEASURES:
            difference = None if one is None or other is None else other - one
            table.add_row(printable(name), number(one), number(other), number(difference))
    table.caption = f"of {len(found.metrics)} metrics: --json prints all"
    console.print(table)


def _show_differences(differs: list[str], console: Console) -> None:
    console.print("A → B differs in:" if differs else "A and B state the same")
    for line in differs:
        shown = printable(f"  {line}")
        console.print(shown)
