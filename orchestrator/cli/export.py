"""The command export: a trained backbone for other programs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestrator import interrupt
from orchestrator.cli.exit_codes import INTERRUPTED
from orchestrator.cli.options import at_home
from orchestrator.cli.rendering import make_console


class Form(StrEnum):
    """For which program a backbone is written."""

    TIMM = "timm"
    HUGGINGFACE = "huggingface"
    SAFETENSORS = "safetensors"


class Which(StrEnum):
    """Which network of a run."""

    TEACHER = "teacher"
    STUDENT = "student"


def export(
    run: Annotated[
        Path,
        typer.Argument(
            callback=at_home,
            help="The folder of a run, or a checkpoint of one.",
            show_default=False,
        ),
    ],
    to: Annotated[
        Form,
        typer.Option(
            "--to",
            help="For timm, or for Hugging Face's transformers; `safetensors` keeps what these "
            "lack (rotary positions, a wandering [CLS]), and dinolab opens it.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            callback=at_home,
            metavar="PATH",
            help="Folder to write, new or empty; with --to safetensors also a FILE.safetensors.",
            show_default=False,
        ),
    ],
    network: Annotated[Which, typer.Option(help="Whose backbone.")] = Which.TEACHER,
) -> None:
    """Write a trained backbone as timm or Hugging Face's transformers open it, with equal features.

    Weights, configuration and how images are prepared. What has no counterpart there is refused by
    the name of its knob. PATH is written whole or not at all.
    """
    from trainers.adapters import export as exporting

    console = make_console()
    try:
        written = exporting.export(run, to.value, out, network.value)
    except KeyboardInterrupt:
        interrupt.tell("interrupted: nothing was written", console.print)
        raise typer.Exit(INTERRUPTED) from None
    console.print(f"{written.origin}: {written.path}")
    console.print(f"opens with {written.opens}")
