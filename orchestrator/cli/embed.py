"""The command embed: features of a data set."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress

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


def embed(
    model: Annotated[
        str,
        typer.Argument(
            help="What `dinolab measure` takes: a run, a checkpoint, a file of weights, a folder "
            "of Hugging Face's or timm's, or the name of a timm ViT.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            callback=at_home,
            metavar="FILE.parquet",
            help="A new file: name, label, split, and features as lists of fixed size.",
            show_default=False,
        ),
    ],
    data: ModelImagesOption = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="cls,patch_mean",
            help="Columns of features: cls, patch_mean, register_mean; all that the model has if "
            "not given.",
            show_default=False,
        ),
    ] = None,
    size: SizeOption = None,
    weights: WeightsOption = None,
    heads: HeadsOption = None,
    pretrained: PretrainedOption = False,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of random weights.")] = 0,
    device: DeviceOption = Device.AUTO,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a pass.")] = 64,
    threads: ThreadsOption = None,
    root: RootOption = DEFAULT_ROOT,
    quiet: QuietOption = False,
) -> None:
    """Write the features of every image of a data set to a parquet file.

    A row an image: of [CLS], and means of patches and registers, behind the last norm, in float32.
    Memory does not grow with the data set. The file is written whole or not at all.
    """
    # Threads that wait must sleep: spinning, they stop each other where CPUs are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from orchestrator.cli import measure_options
    from trainers.adapters import embedding
    from trainers.adapters.opening import open_measurable
    from trainers.system.memory import memory_explained
    from trainers.system.world import chosen_device

    console = make_console()
    live = console.is_terminal and not quiet
    embedding.check_file(out)
    chosen = chosen_device(device)
    if threads is not None:
        measure_options.use_threads(threads)
    opened = open_measurable(model, weights=weights, published=pretrained, heads=heads, seed=seed)
    asked = None if tokens is None else [token.strip() for token in tokens.split(",")]
    kinds = embedding.kinds_of(opened, asked)
    source = measure_options.images_wanted(opened, data, size)
    images = open_with_progress(source, absolute_root(root, console), console, live)
    side = opened.image_size if size is None else size
    console.print(f"model {opened.name}, weights: {opened.weights}")
    for note in opened.notes:
        console.print(f"note: {note}")
    if opened.is_random:
        console.print(f"RANDOM WEIGHTS: {opened.name} is not trained", style="bold red")
    console.print(
        f"images: {len(images)} in {source.source}, {side} pixels, mean and deviation "
        f"{opened.normalisation}, on {chosen.type}"
    )
    try:
        with Progress(
            *Progress.get_default_columns(),
            MofNCompleteColumn(),
            console=console,
            transient=True,
            disable=not live,
        ) as progress:
            task = progress.add_task("embedding", total=len(images))

            def show(done: int, total: int) -> None:
                interrupt.check()
                progress.update(task, completed=done, total=total)

            with memory_explained("embedding", "lower --batch-size or --size"):
                embedding.write_embeddings(
                    out,
                    opened,
                    images,
                    embedding.Plan(kinds=kinds, size=side, batch_size=batch_size),
                    chosen,
                    facts={
                        "given": model,
                        "model": opened.name,
                        "weights": opened.weights,
                        "random_weights": opened.is_random,
                        "images": source.source,
                        "normalisation": opened.normalisation,
                        "device": chosen.type,
                        "versions": measure_options.versions(),
                    },
                    progress=show,
                )
    except KeyboardInterrupt:
        interrupt.tell("interrupted: nothing was written", console.print)
        raise typer.Exit(INTERRUPTED) from None
    console.print(f"features: {out} ({', '.join(kinds)})")
