"""The command reproduce: what a paper prints, and the same measured of your weights."""

import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from orchestrator import interrupt
from orchestrator.cli.exit_codes import INTERRUPTED
from orchestrator.cli.measure import measured
from orchestrator.cli.options import (
    DEFAULT_ROOT,
    Device,
    DeviceOption,
    QuietOption,
    RootOption,
    ThreadsOption,
    absolute_root,
)
from orchestrator.cli.rendering import make_console, open_with_progress
from trainers.errors import InputError, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from dashboards.papers.paper import Compared, Paper
    from trainers.globality.measurable import Measurable


def reproduce(
    paper: Annotated[
        str | None,
        typer.Argument(
            help="A paper that is listed when none is given, or a YAML file like those.",
            show_default=False,
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME=MODEL",
            help="Weights of one of the paper's networks, whatever `dinolab measure` takes; again "
            "for each.",
            show_default=False,
        ),
    ] = None,
    pretrained: Annotated[
        bool,
        typer.Option("--pretrained", help="Downloads timm's weights of those that are not given."),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="Images, as `dinolab measure` takes them; for k-NN with labels, some held out.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Images whose attention is measured; k-NN takes all.")
    ] = 1000,
    as_json: Annotated[
        bool, typer.Option("--json", help="Prints JSON instead of a table.")
    ] = False,
    device: DeviceOption = Device.AUTO,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a pass.")] = 16,
    threads: ThreadsOption = None,
    root: RootOption = DEFAULT_ROOT,
    quiet: QuietOption = False,
) -> None:
    """Measure what a paper prints, of the weights you have: published, measured, near or not.

    What no weights are given for is shown as not measured. Without PAPER the papers are listed.
    """
    from dashboards.papers.paper import compared, read_paper

    console = make_console()
    if paper is None:
        _list_papers(console)
        return
    found_paper = read_paper(paper)
    chosen = _chosen(found_paper, models or [], pretrained)
    if chosen and data is None:
        raise InputError(
            f"--data is missing: images to measure; the paper's are {found_paper.images}"
        )
    # Talk is beside JSON, not in it.
    talk = make_console(aside=True) if as_json else console
    how = _How(
        data=str(data), limit=limit, device=device, batch_size=batch_size, threads=threads,
        root=root, quiet=quiet, console=talk,
    )  # fmt: skip
    found: dict[str, dict[str, float]] = {}
    try:
        for name, (given, published) in chosen.items():
            talk.print(f"{name}:", style="bold")
            found[name] = _measured(found_paper, name, given, published, how)
    except KeyboardInterrupt:
        talk.print("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    lines = compared(found_paper, found)
    if as_json:
        print(json.dumps(_as_json(found_paper, lines, data), indent=2, ensure_ascii=False))
        return
    _show(found_paper, lines, data, console)


def _list_papers(console: Console) -> None:
    from dashboards.papers.paper import packaged_papers, read_paper

    table = Table("paper", "what it prints", "networks (--model NAME=MODEL)", box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for name in packaged_papers():
        paper = read_paper(name)
        numbers = sum(len(value.published) for value in paper.values)
        table.add_row(
            name,
            f"{paper.title} ({paper.authors}, {paper.year}): {numbers} numbers",
            ", ".join(paper.models),
        )
    console.print(table)


def _chosen(paper: "Paper", models: list[str], pretrained: bool) -> dict[str, tuple[str, bool]]:
    """Of each network to be measured, what names it, and whether its weights are timm's.

    Raises InputError, one line, for what is no network of the paper.
    """
    found: dict[str, tuple[str, bool]] = {}
    for text in models:
        name, equals, given = text.partition("=")
        if name not in paper.models or not equals or not given:
            raise InputError(
                f"--model {printable(text)}: must be NAME=MODEL, and NAME one of "
                f"{', '.join(paper.models)}"
            )
        if name in found:
            raise InputError(f"--model {printable(name)} is given twice")
        found[name] = given, False
    if pretrained:
        found |= {
            name: (network.timm, True)
            for name, network in paper.models.items()
            if name not in found
        }
    return {name: found[name] for name in paper.models if name in found}


@dataclass(frozen=True, kw_only=True)
class _How:
    """What networks are measured on, and how."""

    data: str
    limit: int
    device: Device
    batch_size: int
    threads: int | None
    root: str
    quiet: bool
    console: Console


def _measured(
    paper: "Paper", name: str, given: str, published: bool, how: _How
) -> dict[str, float]:
    """The paper's metrics of one network."""
    from dashboards.papers.paper import KNN, check_network

    asked = {value.metric for value in paper.values if name in value.published}

    def check(opened: "Measurable") -> None:
        check_network(name, paper.models[name], opened)

    found: dict[str, float] = {}
    if asked - {KNN}:
        causes = any(metric.startswith(("influence/", "reach/")) for metric in asked)
        _, _, all_of_it = measured(
            given, console=how.console, out=None, data=how.data, thorough=True, limit=how.limit,
            size=paper.size, weights=None, heads=None, pretrained=published, seed=0, layers=None,
            causal_images=None if causes else 0, patch_queries=256, device=how.device,
            batch_size=how.batch_size, memory=64.0, threads=how.threads, root=how.root,
            quiet=how.quiet, check=check,
        )  # fmt: skip
        found |= all_of_it.metrics
    if KNN in asked:
        found[KNN] = _of_neighbours(given, published, paper.size, check, how)
    return {metric: found[metric] for metric in asked if metric in found}


def _of_neighbours(
    given: str, published: bool, size: int, check: "Callable[[Measurable], None]", how: _How
) -> float:
    # Threads that wait must sleep: spinning, they stop each other where CPUs are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from orchestrator.cli import measure_options
    from trainers.adapters.nearest import knn_accuracy
    from trainers.adapters.opening import open_measurable
    from trainers.system.memory import memory_explained
    from trainers.system.world import chosen_device

    chosen = chosen_device(how.device)
    if how.threads is not None:
        measure_options.use_threads(how.threads)
    opened = open_measurable(given, published=published)
    check(opened)
    live = how.console.is_terminal and not how.quiet
    source = measure_options.images_wanted(opened, how.data, size)
    images = open_with_progress(source, absolute_root(how.root, how.console), how.console, live)
    with Progress(console=how.console, transient=True, disable=not live) as progress:
        task = progress.add_task("embedding", total=None)

        def show(done: int, total: int) -> None:
            interrupt.check()
            progress.update(task, completed=done, total=total)

        with memory_explained("embedding", "lower --batch-size"):
            return knn_accuracy(
                opened, images, size, chosen, batch_size=how.batch_size, progress=show
            )


def _digits(value: float | None, signed: bool = False) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:+.3f}".replace("-", "−") if signed else f"{value:.3f}"


_WORDS = {True: "yes", False: "no", None: "not measured"}


def _show(paper: "Paper", lines: "list[Compared]", data: str | None, console: Console) -> None:
    console.print(f"{paper.title} ({paper.authors}, {paper.year}); {paper.source}")
    table = Table(
        "what", "network", "published", "measured", "difference", "within",
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for column in table.columns[2:5]:
        column.justify = "right"
    for line in lines:
        near = _WORDS[line.within]
        if line.within is not None:
            near += f" (±{line.tolerance:g})"
        table.add_row(
            line.what, line.model, _digits(line.published), _digits(line.measured),
            _digits(line.difference, signed=True), near,
        )  # fmt: skip
    console.print(table)
    for note in _notes(paper, lines, data):
        console.print(f"note: {note}")


def _notes(paper: "Paper", lines: "list[Compared]", data: str | None) -> list[str]:
    notes = list(paper.notes)
    if data is not None:
        notes.append(
            f"The paper's images are {paper.images}, at {paper.size} pixels; these are {data}. On "
            "other images other numbers are no failed reproduction."
        )
    missing = dict.fromkeys(line.model for line in lines if line.measured is None)
    if missing:
        shown = ", ".join(f"{name} ({paper.models[name].timm})" for name in missing)
        notes.append(f"Not measured, for want of weights: {shown}; give --model NAME=MODEL.")
    return notes


def _as_json(paper: "Paper", lines: "list[Compared]", data: str | None) -> dict[str, Any]:
    return {
        "paper": {"title": paper.title, "source": paper.source, "images": paper.images},
        "data": data,
        "values": [
            {
                "what": line.what,
                "model": line.model,
                "metric": line.metric,
                "published": line.published,
                "tolerance": line.tolerance,
                "measured": line.measured,
                "difference": line.difference,
                "within": line.within,
            }
            for line in lines
        ],
        "notes": _notes(paper, lines, data),
    }
