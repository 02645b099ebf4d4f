"""Commands for one's own files: new and schema."""

import json
import shlex
from enum import StrEnum, auto
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import at_home
from orchestrator.cli.rendering import make_console


class Kind(StrEnum):
    """What can be written anew."""

    ablation = auto()
    study = auto()


def new(
    what: Annotated[Kind, typer.Argument(show_default=False)],
    name: Annotated[
        str,
        typer.Argument(
            help="Its name: lower-case letters, digits and _ (in a study also -).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(callback=at_home, metavar="FOLDER", help="Where the file is written.")
    ] = Path(),
) -> None:
    """Write NAME.py, an ablation of your own, or NAME.yaml, a study: it works, and you change it.

    Use an ablation by `--ablations NAME.py` and its name under `arms:` in a study.
    """
    from ablations.template import write_ablation, write_study

    if what == Kind.ablation:
        path = write_ablation(name, out)
        use = f"name {name} in a study and give --ablations {shlex.quote(str(path))}"
    else:
        path = write_study(name, out)
        use = f"`dinolab run {shlex.quote(str(path))}`"
    console = make_console()
    console.print(f"{path}: change it, then {use}")


def schema() -> None:
    """Print the JSON Schema of a study file, for editors."""
    from ablations.study.schema import StudyFile

    print(json.dumps(StudyFile.model_json_schema(), indent=2))
