"""The command list: what can be named, and what a run root holds."""

from collections.abc import Callable
from enum import StrEnum, auto
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.cli.options import DEFAULT_ROOT, AblationsOption, RootOption, absolute_root
from orchestrator.cli.rendering import make_console, old_studies_text
from trainers.errors import InputError


class Listing(StrEnum):
    """What can be listed."""

    ablations = auto()
    recipes = auto()
    datasets = auto()
    metrics = auto()
    studies = auto()
    runs = auto()
    knobs = auto()


def list_(
    context: typer.Context,
    what: Annotated[Listing, typer.Argument(show_default=False)],
    ablations: AblationsOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME",
            help="`list knobs`: the values of this recipe, those that differ from the default "
            "marked *.",
            show_default=False,
        ),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
) -> None:
    """List what can be named: ablations, recipes, datasets, metrics, studies, runs, knobs.

    `list studies` names the packaged studies, which `dinolab run NAME` runs; `list runs` the
    studies of a run root and how far each is, `list studies --root ROOT` both.
    """
    for option, given, used_by in (
        ("--ablations", ablations, Listing.ablations),
        ("--recipe", recipe, Listing.knobs),
    ):
        if given and what != used_by:
            raise InputError(f"list {what}: {option} belongs to `list {used_by}` alone")
    source = context.get_parameter_source("root")
    origin = source.name if source else ""
    is_given = origin == "COMMANDLINE"
    if is_given and what not in (Listing.studies, Listing.runs):
        raise InputError(f"list {what}: --root belongs to `list studies` and `list runs` alone")
    # A root in the environment is for every command, and need not be there yet.
    is_root = is_given or (origin == "ENVIRONMENT" and ("://" in root or Path(root).is_dir()))
    console = make_console()
    listings: dict[Listing, Callable[[], Table]] = {
        Listing.ablations: lambda: _list_ablations(ablations or []),
        Listing.recipes: _list_recipes,
        Listing.datasets: _list_datasets,
        Listing.metrics: _list_metrics,
        Listing.studies: _list_studies,
        Listing.knobs: lambda: _list_knobs(recipe),
    }
    if what in listings:
        console.print(listings[what]())
    if what == Listing.runs or (what == Listing.studies and is_root):
        _show_runs(absolute_root(root, console), console)


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
            table.add_row(*cells)
    return table


def _list_recipes() -> Table:
    import importlib

    import ablations.recipes
    from ablations.library import names_in

    table = Table("recipe", "what it is")
    for name in names_in(ablations.recipes):
        text = importlib.import_module(f"ablations.recipes.{name}").__doc__ or ""
        table.add_row(name, text.splitlines()[0])
    return table


def _list_datasets() -> Table:
    table = Table("data set", "what it is", caption="Where an image is transparent it is white.")
    table.add_row("digits", "1,797 scanned digits, 8×8 grey, 10 labels; embedded (scikit-learn)")
    table.add_row(
        "photographs",
        "2,464 crops of 11 photographs, 48×48, which one is the label; embedded (scikit-image)",
    )
    table.add_row(
        "photographs_equalised",
        "the same in grey, with equally many pixels of each level in each crop; embedded",
    )
    scenes = "3,200 scenes made by rule, 48×48, 4 labels:"
    table.add_row("scenes_far", f"{scenes} how two objects at opposite borders differ; embedded")
    table.add_row("scenes_near", f"{scenes} which texture lies in it; embedded")
    table.add_row("PATH", "a folder of images of any sizes and modes; sub-folders are labels")
    table.add_row("DIR", "what `dinolab ingest SOURCE --out DIR` made, local or s3://, gs://")
    return table


def _list_metrics() -> Table:
    from trainers.globality.measurement import DESCRIPTIONS
    from trainers.metrics import METRICS

    table = Table("metric", "meaning")
    for name, text in METRICS.items():
        table.add_row(name, text)
    for name, text in DESCRIPTIONS.items():
        table.add_row(name, f"{text}; of `dinolab measure` alone")
    return table


def _list_studies() -> Table:
    from ablations.study.where import packaged_studies, question_of

    table = Table("study", "what it asks", "file")
    table.columns[0].no_wrap, table.columns[2].overflow = True, "fold"
    for name, path in packaged_studies().items():
        table.add_row(name, question_of(path), str(path))
    return table


def _show_runs(root: str, console: Console) -> None:
    from dashboards.tables.chain import old_studies
    from dashboards.tables.root import SINGLE, summaries
    from trainers.system.store import open_store

    table = Table("study", "arms × seeds", "runs", "started", "last result")
    store = open_store(root)
    table.title, table.title_justify = f"Studies in {store.shown}", "left"
    for one in summaries(store):
        counts = [f"{count} {status}" for status, count in sorted(one.statuses.items())]
        size = f"{one.arms} × {one.seeds}" if one.arms else "–"
        if one.name == SINGLE:
            size = "single runs"
        times = [f"{time:%Y-%m-%d %H:%M} UTC" if time else "–" for time in (one.started, one.ended)]
        cells = (one.name, size, one.problem or "\n".join(counts) or "none", *times)
        table.add_row(*cells)
    console.print(table)
    if old := old_studies(store):
        console.print(f"note: {old_studies_text(old)}")


def _list_knobs(recipe_name: str | None) -> Table:
    from trainers.config import TrainConfig, flatten
    from trainers.config.listing import knobs
    from trainers.config.recipe import recipe

    table = Table("knob", "default", "allowed", "unit", "meaning (source)")
    table.columns[0].no_wrap = True
    table.columns[-1].min_width = 44
    values, defaults = {}, flatten(TrainConfig())
    if recipe_name is not None:
        values = flatten(recipe(recipe_name))
        table.columns[1].header = f"{Path(recipe_name).stem} (* not the default)"
    for knob in knobs():
        shown = str(knob.default)
        if knob.name in values and values[knob.name] != defaults[knob.name]:
            shown = f"* {values[knob.name]} (default {shown})"
        allowed = knob.allowed if knob.type in ("choice", "bool") else f"{knob.type} {knob.allowed}"
        cells = (
            knob.name, shown, allowed.strip(), knob.unit,
            f"{knob.description} ({knob.source})",
        )  # fmt: skip
        table.add_row(*cells)
    return table
