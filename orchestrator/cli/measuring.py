"""What `dinolab measure` decides from its options, and what it prints; it needs no Ray."""

import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dashboards.measurement.report import (
    KINDS,
    MEASURES,
    TOKEN_MEASURES,
    Row,
    columns,
    headline,
    honest_notes,
    number,
)
from trainers.adapters.measurable import Measurable
from trainers.config import DataConfig
from trainers.data.image_set import ImageSet
from trainers.errors import InputError
from trainers.globality.instruments import Settings
from trainers.globality.measurement import Measurement, Plan, check_layers, choose
from trainers.system.world import default_device

DEVICES = ("auto", "cpu", "cuda")

ROOM = 4 / 3
"""Side of the stored squares over that of the crops: those of 4:3 images lose no resolution."""

PACKAGES = ("dinolab", "torch", "timm")


def device_named(name: str) -> torch.device:
    """The device of one of DEVICES. Raises InputError for another, or a GPU that is not there."""
    if name not in DEVICES:
        raise InputError(f"--device {name}: no such device (allowed: {', '.join(DEVICES)})")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no GPU here; use cpu or auto")
    return default_device() if name == "auto" else torch.device(name)


def use_threads(threads: int) -> None:
    """Compute on that many CPU threads."""
    torch.set_num_threads(threads)


def images_wanted(model: Measurable, data: str | None, size: int | None) -> DataConfig:
    """Which images, and how large they are to be kept. Raises InputError when nothing says which.

    A run of ours is measured on its own images as `dinolab eval` sees them.
    """
    own = model.trained_on
    if data is None and own is None:
        raise InputError(
            "--data is missing: `digits`, `photographs`, a folder, or what `dinolab ingest` made"
        )
    side = model.image_size if size is None else size
    model.grid(side)
    if own is not None and (data is None or data == own.source):
        larger = max(own.image_size, side)
        return own.model_copy(update={"image_size": larger})
    return DataConfig(source=str(data), image_size=max(4, round(ROOM * side)))


def plan(
    model: Measurable,
    images: ImageSet,
    source: DataConfig,
    *,
    limit: int,
    size: int | None,
    layers: str | None,
    batch_size: int,
    memory: float,
    patch_queries: int,
    causal_images: int,
    seed: int,
) -> Plan:
    """The measurement that the options ask for. Raises InputError for layers that are not there."""
    primary = model.primary_layers()
    if layers is not None:
        try:
            asked = [int(part) for part in layers.split(",")]
        except ValueError:
            raise InputError(f"--layers {layers}: must be numbers such as 7,8") from None
        primary = check_layers(asked, model.depth)
    side = model.image_size if size is None else size
    own = model.trained_on is not None and model.trained_on.source == source.source
    places, part = choose(images, limit, trained_on_them=own)
    return Plan(
        places=places,
        part=part,
        size=side,
        grid=model.grid(side),
        primary=primary,
        batch_size=batch_size,
        settings=Settings(
            memory=memory,
            patch_queries=patch_queries,
            causal_images=min(causal_images, len(places)),
            replacement="mean",
            seed=seed,
        ),
    )


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
        console.print(line, markup=False, highlight=False)
    if model.is_random:
        console.print(f"RANDOM WEIGHTS: {model.name} is not trained", style="bold red")


def facts(
    argument: str,
    model: Measurable,
    plan: Plan,
    source: DataConfig,
    images: ImageSet,
    device: torch.device,
) -> dict[str, Any]:
    """What was measured, how and with what, for `summary.json`."""
    return {
        "model": {
            "given": argument,
            "name": model.name,
            "weights": model.weights,
            "random_weights": model.is_random,
            "parameters": model.parameters,
            "blocks": model.depth,
            "cls": model.has_cls,
            "registers": model.registers,
            "patch_size": model.patch_size,
            "image_size": model.image_size,
        },
        "images": {
            "source": source.source,
            "digest": images.digest,
            "measured": len(plan.places),
            "part": plan.part,
            "size": plan.size,
            "grid": list(plan.grid),
            "mean": list(model.mean),
            "deviation": list(model.deviation),
            "normalisation": model.normalisation,
        },
        "settings": {
            "primary_layers": list(plan.primary),
            "final_block": model.depth,
            "causal_images": plan.settings.causal_images,
            "replacement": plan.settings.replacement,
            "patch_queries": plan.settings.patch_queries,
            "batch_size": plan.batch_size,
            "memory_mib": plan.settings.memory,
            "seed": plan.settings.seed,
            "device": device.type,
        },
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


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
            table.add_column(mark + escape(name), justify="right", no_wrap=True, min_width=6)
    for kind in KINDS.values():
        of_kind = [row for row in rows if row.kind == kind]
        if not of_kind:
            continue
        table.add_section()
        table.add_row(f"[bold]{escape(kind)}[/bold]")
        for row in of_kind:
            cells = [number(getattr(row, part)[token]) for part in parts for token in titles]
            table.add_row("  " + row.measure.replace("_", " "), *cells)
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
            meaning.add_row(measure.replace("_", " "), escape(text))
    console.print(meaning)
    blocks = Table(
        "tokens", "primary", "final", "meaning", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for name, text in TOKEN_MEASURES.items():
        if name in found.metrics:
            final = number(found.metrics.get(f"{name}/final_block"))
            what = name.split("/", 1)[1].replace("_", " ").replace("/", " ")
            blocks.add_row(what, number(found.metrics[name]), final, escape(text))
    console.print(blocks)
    for note in honest_notes(model, plan, found.metrics):
        console.print(f"note: {note}", markup=False, highlight=False)
