"""Commands for one's own files: new and schema."""

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.rendering import make_console
from trainers.errors import InputError


def new(
    what: Annotated[str, typer.Argument(metavar="ablation", show_default=False)],
    name: Annotated[
        str, typer.Argument(help="Its name: lower-case letters, digits and _.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where NAME.py is written.")] = Path(),
) -> None:
    """Write NAME.py, an ablation of your own that works and waits to be changed.

    Use it by `--ablations NAME.py` and its name under `arms:` in a study.
    """
    from ablations.template import write_ablation

    if what != "ablation":
        raise InputError(f"new {what}: no such thing (allowed: ablation)")
    path = write_ablation(name, out)
    console = make_console()
    console.print(
        f"{path}: change it, then name {name} in a study and give --ablations {path}",
        markup=False,
        highlight=False,
    )


def schema() -> None:
    """Print the JSON Schema of a study file, for editors."""
    from ablations.study.schema import StudyFile

    print(json.dumps(StudyFile.model_json_schema(), indent=2))
