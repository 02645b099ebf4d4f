"""The command ingest: images from anywhere into one data set."""

from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress

from orchestrator import interrupt
from orchestrator.cli.exit_codes import INTERRUPTED
from orchestrator.cli.options import QuietOption
from orchestrator.cli.rendering import make_console, show_rows


def ingest(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of images (sub-folders are labels; train/ val/ test/ above them are "
            "splits), a parquet or Arrow file with image bytes, a folder or a 'pattern*' of such "
            "files, torchvision:NAME[:FOLDER], hf:NAME[:CONFIG]; local, or s3://, gs://.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Folder of the data set: a path, s3:// or gs://.",
            show_default=False,
        ),
    ],
    quiet: QuietOption = False,
) -> None:
    """Turn images from anywhere into one indexed data set in DIR, and print its digest.

    Use it as `--data DIR`, or as `dataset:` in a study. Broken images are left out and listed with
    reasons in DIR/skipped.parquet, images of equal bytes in DIR/duplicates.parquet. Where an image
    is transparent it becomes white. After an interruption the same command goes on where it
    stopped.
    """
    from trainers.data import arrow
    from trainers.data import ingest as ingesting
    from trainers.data.sources.grammar import open_source
    from trainers.errors import printable
    from trainers.system.storage import locate

    console = make_console()
    home = locate(out)
    opened = open_source(source)
    console.print(f"{printable(opened.name)}: {len(opened)} items")
    finished = 0
    with Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    ) as progress:
        task = progress.add_task("ingesting", total=len(opened))

        def show(done: int, total: int) -> None:
            nonlocal finished
            finished = done
            interrupt.check()
            progress.update(task, completed=done, total=total)

        try:
            manifest = ingesting.ingest(opened, home, show)
        except KeyboardInterrupt:
            progress.stop()
            interrupt.tell(
                f"interrupted at {finished} of {len(opened)} items: the same command goes on "
                f"from the last whole part in {home.shown}",
                console.print,
            )
            raise typer.Exit(INTERRUPTED) from None
    if not finished and len(opened):
        console.print(f"{home.shown} is finished already")
    splits = ", ".join(f"{name or 'no split'} {n}" for name, n in manifest.splits.items())
    console.print(
        f"{_counted(manifest.images, 'image')} ({splits}), "
        f"{_counted(len(manifest.classes), 'label')}, {manifest.skipped} skipped, "
        f"{_counted(manifest.duplicates, 'duplicate')}",
    )
    for name, title in (
        (arrow.SKIPPED, "Skipped: cannot be decoded"),
        (
            arrow.DUPLICATES,
            "Duplicates: a group has equal bytes, the first is the original (all are kept)",
        ),
    ):
        show_rows(home / name, title, console)
    print(manifest.digest)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
