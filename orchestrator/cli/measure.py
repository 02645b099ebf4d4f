"""The command measure: how globally any ViT attends."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from orchestrator import interrupt
from orchestrator.cli.exit_codes import INTERRUPTED
from orchestrator.cli.options import (
    DEFAULT_ROOT,
    Device,
    DeviceOption,
    HeadsOption,
    ModelImagesOption,
    PretrainedOption,
    QuietOption,
    RootOption,
    SizeOption,
    ThreadsOption,
    WeightsOption,
    absolute_root,
    at_home,
)
from orchestrator.cli.rendering import make_console, open_with_progress

if TYPE_CHECKING:
    from trainers.globality.measurable import Measurable
    from trainers.globality.measurement import Measurement, Plan


class Replacement(StrEnum):
    """What stands in for a patch whose influence is measured."""

    MEAN = "mean"
    OTHER = "other"
    MOVED = "moved"


def measure(
    model: Annotated[
        str,
        typer.Argument(
            help="A checkpoint or run folder of dinolab, or what `dinolab export` wrote; a file of "
            "weights under timm or official DINO names; a Hugging Face folder (vit, deit, dinov2, "
            "dinov2_with_registers); or the name of a timm ViT (vit_tiny_patch16_224).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            callback=at_home,
            metavar="DIR",
            help="Folder for report.html, figures, metrics.parquet and summary.json: new or empty.",
            show_default=False,
        ),
    ],
    data: ModelImagesOption = None,
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough",
            help="Takes 256 images, 16 of them for influence and gradient reach, instead of 96 "
            "and 3: more than twice as long.",
        ),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images, the first in an order keyed by their names.",
            show_default="96, or 256",
        ),
    ] = None,
    size: SizeOption = None,
    weights: WeightsOption = None,
    heads: HeadsOption = None,
    pretrained: PretrainedOption = False,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**63 - 1, help="Of random weights, shuffled patches and probes."),
    ] = 0,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="7,8",
            help="Primary layers, blocks from 1; the last third without the final block if not "
            "given.",
            show_default=False,
        ),
    ] = None,
    causal_images: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Images for influence and gradient reach, which cost some 350 passes each; below "
            "2: neither.",
            show_default="3, or 16",
        ),
    ] = None,
    replacement: Annotated[
        Replacement,
        typer.Option(
            help="What stands in for a patch whose influence is measured: the mean patch at its "
            "place, that of another image, or another one of the same image."
        ),
    ] = Replacement.MEAN,
    patch_queries: Annotated[
        int, typer.Option(min=1, help="Patch queries measured on grids of more than 196 patches.")
    ] = 64,
    device: DeviceOption = Device.AUTO,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a pass.")] = 16,
    memory: Annotated[
        float, typer.Option(min=0.1, max=2**20, help="Attention weights held at once, MiB.")
    ] = 64.0,
    threads: ThreadsOption = None,
    root: RootOption = DEFAULT_ROOT,
    quiet: QuietOption = False,
) -> None:
    """Measure how globally any ViT attends: attention, rollout, influence, gradient reach.

    Attention of [CLS], registers and patches, relative to uniform attention, with controls. Works
    in memory linear in tokens, with fused attention as it is. After an interruption nothing is
    left in DIR.
    """
    console = make_console()
    try:
        found = measured(
            model, console=console, out=out, data=data, thorough=thorough, limit=limit, size=size,
            weights=weights, heads=heads, pretrained=pretrained, seed=seed, layers=layers,
            causal_images=causal_images, replacement=replacement, patch_queries=patch_queries,
            device=device,
            batch_size=batch_size, memory=memory, threads=threads, root=root, quiet=quiet,
        )  # fmt: skip
    except _NothingWritten:
        interrupt.tell("interrupted: nothing was written", console.print)
        raise typer.Exit(INTERRUPTED) from None
    from orchestrator.cli.measure_output import show_measurement

    show_measurement(*found, console)
    console.print(f"report: {out / 'report.html'}")


class _NothingWritten(KeyboardInterrupt):
    """An interrupt while a model is measured."""


def measured(
    model: str,
    *,
    console: Console,
    out: Path | None,
    data: str | None,
    thorough: bool,
    limit: int | None,
    size: int | None,
    weights: Path | None,
    heads: int | None,
    pretrained: bool,
    seed: int,
    layers: str | None,
    causal_images: int | None,
    replacement: Replacement = Replacement.MEAN,
    patch_queries: int,
    device: Device,
    batch_size: int,
    memory: float,
    threads: int | None,
    root: str,
    quiet: bool,
    remedy: str = "lower --batch-size, --memory or --size",
) -> "tuple[Measurable, Plan, Measurement]":
    """The model, what was measured of it, and what came out; written to `out` if that is given.

    `remedy` is what a user is told to do where memory runs out.
    """
    # Threads that wait must sleep: spinning, they stop each other where CPUs are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dashboards.measurement.report import check_folder, write_measurement
    from orchestrator.cli import measure_options, measure_output
    from trainers.adapters.opening import open_measurable
    from trainers.globality import measurement
    from trainers.system.memory import memory_explained
    from trainers.system.world import chosen_device

    live = console.is_terminal and not quiet
    if out is not None:
        check_folder(out)
    chosen = chosen_device(device)
    if threads is not None:
        measure_options.use_threads(threads)
    opened = open_measurable(model, weights=weights, published=pretrained, heads=heads, seed=seed)
    source = measure_options.images_wanted(opened, data, size)
    images = open_with_progress(source, absolute_root(root, console), console, live)
    plan = measure_options.plan(
        opened,
        images,
        source,
        thorough=thorough,
        limit=limit,
        size=size,
        layers=layers,
        batch_size=batch_size,
        memory=memory,
        patch_queries=patch_queries,
        causal_images=causal_images,
        replacement=replacement.value,
        seed=seed,
    )
    try:
        measure_output.introduce(opened, plan, source, chosen, console)
        with measure_output.measuring_progress(console, live) as (show, drawing):
            with memory_explained("measuring", remedy):
                found = measurement.measure(opened, images, plan, chosen, show)
            if out is not None:
                drawing()
                facts = measure_options.facts(model, opened, plan, source, images, chosen)
                write_measurement(out, opened, plan, found, facts=facts, check=interrupt.check)
    except KeyboardInterrupt:
        raise _NothingWritten from None
    return opened, plan, found
