"""What `dinolab measure` prints."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from dashboards.measurement.table import (
    KINDS,
    MEASURES,
    REPLACED,
    Kept,
    Row,
    columns,
    flow_table,
    headline,
    honest_notes,
    number,
    of_blocks,
    replaced_table,
)
from orchestrator import interrupt
from trainers.config import DataConfig
from trainers.globality.measurable import Measurable
from trainers.globality.measurement import Measurement, Plan


def introduce(
    model: Measurable, plan: Plan, source: DataConfig, device: torch.device, console: Console
) -> None:
    """Print what is about to be measured."""
    tokens = "[CLS]" if model.has_cls else "no [CLS]"
    if model.registers:
        tokens += f", {model.registers} register{'s' if model.registers > 1 else ''}"
    lines = [
        f"model {model.name}: {model.depth} blocks, {tokens}, patches of {model.patch_size} "
        f"pixels, {model.parameters / 1e6:.4g} M parameters",
        f"weights: {model.weights}",
        f"images: {len(plan.places)} of {plan.part} in {source.source}, {plan.size} pixels "
        f"({plan.grid[0]}×{plan.grid[1]} patches), mean and deviation {model.normalisation}",
        f"primary layers {', '.join(map(str, plan.primary))}, final block {model.depth}, "
        f"on {device.type}",
    ]
    for line in lines:
        console.print(line)
    if plan.settings.causal_images > 1:
        console.print(
            f"influence and gradient reach: on {plan.settings.causal_images} of them "
            "(--thorough or --causal-images for more)",
        )
    if model.is_random:
        console.print(f"RANDOM WEIGHTS: {model.name} is not trained", style="bold red")


SPOKEN_AFTER_S, SPOKEN_EVERY_S = 3.0, 15.0
"""Where no bar is shown: when the time that is left is said, first and then again."""


@contextlib.contextmanager
def measuring_progress(
    console: Console, live: bool
) -> Iterator[tuple[Callable[[int, int], None], Callable[[], None]]]:
    """Shows the work done and the time left: a bar, or now and then a line.

    Gives what is to be called with the work done and all of it, and raises KeyboardInterrupt after
    a signal; and what is to be called when figures are drawn.
    """
    started = time.monotonic()
    next_line = started + SPOKEN_AFTER_S
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not live,
    ) as progress:
        task = progress.add_task("measuring", total=None)

        def show(done: int, total: int) -> None:
            nonlocal next_line
            interrupt.check()
            progress.update(task, completed=done, total=total)
            now = time.monotonic()
            if not live and now >= next_line:
                next_line = now + SPOKEN_EVERY_S
                left = (now - started) * (total - done) / done
                console.print(f"measuring: {done / total:.0%}, about {left:.0f} s left")

        yield show, lambda: progress.update(task, description="drawing figures")


WIDE = 110
"""Columns of a terminal from which primary layers and final block stand side by side."""


def _table(model: Measurable, rows: Sequence[Row], title: str, parts: Sequence[str]) -> Table:
    titles = columns(model)
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column("measure")
    for part in parts:
        for name in titles.values():
            mark = "| " if part != parts[0] else ""
            # Wide enough for a number, which has 6 characters at most.
            table.add_column(mark + name, justify="right", no_wrap=True, min_width=6)
    for kind in KINDS.values():
        of_kind = [row for row in rows if row.kind == kind]
        if not of_kind:
            continue
        table.add_section()
        table.add_row(Text(kind, style="bold"))
        for row in of_kind:
            cells = [number(getattr(row, part)[token]) for part in parts for token in titles]
            table.add_row("  " + row.measure.replace("_", " "), *cells)
    return table


def _flows(found: Measurement) -> Table:
    rows = flow_table(found.metrics)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("attention of")
    for mark in ("", "| final: "):
        for row in rows:
            table.add_column(f"{mark}to {row.title}", justify="right")
            mark = mark and "| "
    for row in rows:
        cells = [number(part[to.title]) for part in (row.primary, row.final) for to in rows]
        table.add_row(row.title, *cells)
    return table


def _replaced(rows: Sequence[Kept]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("replaced")
    for what, mark in (("kept", ""), ("found", "| ")):
        for output in rows[0].kept:
            table.add_column(f"{mark}{output} {what}", justify="right")
    for row in rows:
        table.add_row(row.title, *map(number, (*row.kept.values(), *row.found.values())))
    return table


def show_measurement(model: Measurable, plan: Plan, found: Measurement, console: Console) -> None:
    """Print the main numbers, what each means, and what to keep in mind."""
    rows = headline(found.metrics)
    primary = f"Primary layers ({', '.join(map(str, plan.primary))})"
    final = f"final block ({model.depth})"
    if console.width < WIDE:
        console.print(_table(model, rows, primary, ("primary",)))
        console.print(_table(model, rows, final.capitalize(), ("final",)))
    else:
        console.print(_table(model, rows, f"{primary} | {final}", ("primary", "final")))
    shown = {row.measure for row in rows}
    meaning = Table("measure", "meaning", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for measure, text in MEASURES.items():
        if measure in shown:
            meaning.add_row(measure.replace("_", " "), text)
    console.print(meaning)
    blocks = Table(
        "tokens", "primary", "final", "meaning", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for title, over, at_the_end, text in of_blocks(found.metrics):
        blocks.add_row(title, number(over), number(at_the_end), text)
    console.print(blocks)
    console.print(_flows(found))
    if rows_of_replaced := replaced_table(found.metrics):
        console.print(_replaced(rows_of_replaced))
        console.print(f"{REPLACED}.")
    for note in honest_notes(model, plan, found.metrics):
        console.print(f"note: {note}")
