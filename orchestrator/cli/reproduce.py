"""The command reproduce: what a paper prints, and the same measured of your weights."""

import json
import math
import os
from collections.abc import Collection
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
    from dashboards.papers.paper import Compared, Paper
    from trainers.data.image_set import ImageSet
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

    Networks that no weights are given for are named, and not measured. Without PAPER the papers are
    listed.
    """
    from dashboards.papers.paper import compared, read_paper

    console = make_console()
    if paper is None:
        _list_papers(console, as_json=as_json)
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
        # All before any is measured: what is wrong with the last costs no work on the first.
        for name, (given, published) in chosen.items():
            _checked(found_paper, name, given, published, how)
        for name, (given, published) in chosen.items():
            talk.print(f"{name}:", style="bold")
            found[name] = _measured(found_paper, name, given, published, how)
    except KeyboardInterrupt:
        interrupt.tell("interrupted", talk.print)
        raise typer.Exit(INTERRUPTED) from None
    lines = compared(found_paper, found)
    notes = _notes(found_paper, lines, data, set(chosen))
    if as_json:
        shown = _as_json(found_paper, lines, data, notes)
        print(json.dumps(shown, indent=2, ensure_ascii=False, allow_nan=False))
        return
    _show(found_paper, [one for one in lines if not chosen or one.model in chosen], notes, console)


def _list_papers(console: Console, *, as_json: bool) -> None:
    from dashboards.papers.paper import packaged_papers, read_paper

    if as_json:
        papers = {name: read_paper(name).model_dump() for name in packaged_papers()}
        print(json.dumps(papers, indent=2, ensure_ascii=False))
        return
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
            if name not in found and network.timm is not None
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
    from dashboards.papers.paper import KNN, value_of

    asked = {value.metric for value in paper.values if name in value.published}
    found: dict[str, float] = {}
    if asked - {KNN}:
        causes = any(metric.startswith(("influence/", "reach/")) for metric in asked)
        _, _, all_of_it = measured(
            given, console=how.console, out=None, data=how.data, thorough=True, limit=how.limit,
            size=paper.size, weights=None, heads=None, pretrained=published, seed=0, layers=None,
            causal_images=None if causes else 0, patch_queries=256, device=how.device,
            batch_size=how.batch_size, memory=64.0, threads=how.threads, root=how.root,
            quiet=how.quiet, remedy="lower --batch-size",
        )  # fmt: skip
        found |= all_of_it.metrics
    if KNN in asked:
        found[KNN] = _of_neighbours(given, published, paper.size, how)
    values = {metric: value_of(metric, found) for metric in asked}
    return {metric: value for metric, value in values.items() if math.isfinite(value)}


def _checked(paper: "Paper", name: str, given: str, published: bool, how: _How) -> None:
    """Raise InputError when the network is none of the paper's, or its images lack labels."""
    from dashboards.papers.paper import KNN, check_network
    from trainers.adapters.nearest import check_labelled
    from trainers.adapters.opening import open_measurable

    opened = open_measurable(given, published=published)
    check_network(name, paper.models[name], opened)
    if any(value.metric == KNN and name in value.published for value in paper.values):
        check_labelled(_images(opened, paper.size, how))


def _images(opened: "Measurable", size: int, how: _How) -> "ImageSet":
    from orchestrator.cli import measure_options

    live = how.console.is_terminal and not how.quiet
    source = measure_options.images_wanted(opened, how.data, size)
    return open_with_progress(source, absolute_root(how.root, how.console), how.console, live)


def _of_neighbours(given: str, published: bool, size: int, how: _How) -> float:
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
    images = _images(opened, size, how)
    live = how.console.is_terminal and not how.quiet
    with Progress(console=how.console, transient=True, disable=not live) as progress:
        task = progress.add_task("embedding", total=None)

        def show(done: int, total: int) -> None:
            interrupt.check()
            progress.update(task, completed=done, total=total)

        with memory_explained("embedding", "lower --batch-size"):
            return knn_accuracy(
                opened, images, size, chosen, batch_size=how.batch_size, progress=show
            )


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


_WORDS = {True: "yes", False: "no", None: "not measured"}


def _show(paper: "Paper", lines: "list[Compared]", notes: list[str], console: Console) -> None:
    from dashboards.measurement.table import number

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
            line.what, line.model, number(line.published), number(line.measured),
            _signed(line.difference), near,
        )  # fmt: skip
    console.print(table)
    if measured_ones := [line for line in lines if line.within is not None]:
        within = sum(bool(line.within) for line in measured_ones)
        console.print(f"{within} of {len(measured_ones)} within their tolerance")
    for note in notes:
        console.print(f"note: {note}")


def _notes(
    paper: "Paper", lines: "list[Compared]", data: str | None, measured_ones: Collection[str]
) -> list[str]:
    notes = list(paper.notes)
    if measured_ones:
        notes.append(
            f"The paper's images are {paper.images}, at {paper.size} pixels; these are {data}. On "
            "other images other numbers are no failed reproduction."
        )
    missing = [line for line in lines if line.measured is None]
    without = dict.fromkeys(line.model for line in missing if line.model not in measured_ones)
    if without:
        shown = ", ".join(f"{name} ({paper.models[name].found_at})" for name in without)
        notes.append(f"Not measured, for want of weights: {shown}; give --model NAME=MODEL.")
    lacking = [f"{line.model}: {line.metric}" for line in missing if line.model in measured_ones]
    if lacking:
        notes.append(f"These networks, on these images, have no such value: {', '.join(lacking)}.")
    return notes


def _as_json(
    paper: "Paper", lines: "list[Compared]", data: str | None, notes: list[str]
) -> dict[str, Any]:
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
        "notes": notes,
    }
