"""The command line: `dinolab`, or `python -m orchestrator`.

Commands import what they need when they run: torch, Ray and MLflow take seconds, and `--help` none.
"""

import contextlib
import errno
import importlib.metadata
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from orchestrator import interrupt
from orchestrator.cli import (
    comparing,
    deploy,
    embed,
    export,
    ingest,
    listing,
    measure,
    networks,
    new,
    pilot,
    planning,
    registration,
    reproduce,
    studies,
    submit,
    trials,
    ui,
    verify,
    watching,
)
from orchestrator.cli.exit_codes import BAD_INPUT, DONE, FAILED, INTERRUPTED
from trainers.errors import DinolabError, InputError, printable


class _Interrupted(BaseException):
    """A KeyboardInterrupt that Typer does not see: it would end the process without a word."""


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise _Interrupted from error


class _Commands(TyperGroup):
    """Words are read, and commands called, where an interrupt is heard."""

    def make_context(self, *given: Any, **named: Any) -> Any:
        with _interruptible():
            return super().make_context(*given, **named)

    def invoke(self, ctx: Any) -> Any:
        with _interruptible():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Declared ablations of DINO vision transformers: paired seeds, checked changes, verdicts.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad input, 3 runs are missing, 130 interrupted.",
)

COMMANDS: dict[str, Callable[..., None]] = {
    "run": studies.run,
    "amend": registration.amend,
    "retry": studies.retry,
    "submit": submit.submit,
    "job": submit.job,
    "plan": planning.plan,
    "pilot": pilot.pilot,
    "report": studies.report,
    "compare": comparing.compare,
    "verify": verify.verify,
    "mirror": studies.mirror,
    "status": trials.status,
    "watch": watching.watch,
    "show": trials.show,
    "logs": trials.logs,
    "gc": trials.gc,
    "list": listing.list_,
    "new": new.new,
    "schema": new.schema,
    "train": networks.train,
    "eval": networks.evaluate,
    "measure": measure.measure,
    "reproduce": reproduce.reproduce,
    "embed": embed.embed,
    "export": export.export,
    "ingest": ingest.ingest,
    "ui": ui.ui,
    "deploy": deploy.deploy,
}


def version() -> str:
    """Version of the checkout this code lies in, or of the installed package where it is in none.

    A checkout comes first: beside it another version may be installed.
    """
    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.is_file():
        found = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
        # Where this package is installed, another project may be around it.
        if found.get("name") == "dinolab":
            return str(found["version"])
    return importlib.metadata.version("dinolab")


def _show_version(asked: bool) -> None:
    if asked:
        print(f"dinolab {version()}")
        raise typer.Exit


@app.callback()
def dinolab(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    # Its help is the app's.
    pass


for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> NoReturn:
    """Run the command line; bad input and every DinolabError is a line on standard error."""
    interrupt.listen()
    try:
        code = app(prog_name="dinolab", standalone_mode=False)
    except typer.TyperException as error:
        # Without any arguments the help is already printed, and there is no message.
        if error.format_message():
            print(line_of(error), file=sys.stderr)
        sys.exit(error.exit_code)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(BAD_INPUT)
    except DinolabError as error:
        print(error, file=sys.stderr)
        sys.exit(FAILED)
    except BaseException as error:
        if (said := _of_no_path(error)) and not interrupt.requested():
            print(said, file=sys.stderr)
            sys.exit(BAD_INPUT)
        # A library whose import was interrupted may raise anything.
        if not isinstance(error, _Interrupted | KeyboardInterrupt) and not interrupt.requested():
            raise
        interrupt.tell("interrupted")
        sys.exit(INTERRUPTED)
    # What a command hands to typer.Exit; a command that ends by itself gives None.
    sys.exit(code or DONE)


def _of_no_path(error: BaseException) -> str:
    """What is wrong with a path that cannot even be asked for; empty of anything else."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str | bytes):
        return ""
    if error.errno not in (errno.ENAMETOOLONG, errno.EACCES):
        return ""
    given = printable(os.fsdecode(error.filename))
    return f"{given}: {os.strerror(error.errno).lower()}; give another path"


def line_of(error: typer.TyperException) -> str:
    """What is wrong with the words of a command, on one line, with the nearest of the choices."""
    from trainers.config import nearest

    text = " ".join(error.format_message().split()).replace("Value error, ", "").removesuffix(".")
    if wrong := re.fullmatch(r".*'(.*)' is not one of (.*)", text):
        text += nearest(wrong[1], re.findall("'(.*?)'", wrong[2]))
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "dinolab"
    return f"{command}: {text} (`{command} --help` says more)"
