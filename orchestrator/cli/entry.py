"""The command line: `dinolab`, or `python -m orchestrator`.

Commands import what they need when they run: torch, Ray and MLflow take seconds, and `--help` none.
"""

import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from orchestrator import interrupt
from orchestrator.cli import ingest, listing, measure, networks, new, studies, ui
from orchestrator.cli.exit_codes import BAD_INPUT, DONE, FAILED, INTERRUPTED
from trainers.errors import DinolabError, InputError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Declared ablations of DINO vision transformers: paired seeds, checked changes, verdicts.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad input, 3 runs are missing, 130 interrupted.",
)

COMMANDS: dict[str, Callable[..., None]] = {
    "run": studies.run,
    "plan": studies.plan,
    "report": studies.report,
    "list": listing.list_,
    "new": new.new,
    "schema": new.schema,
    "train": networks.train,
    "eval": networks.evaluate,
    "measure": measure.measure,
    "ingest": ingest.ingest,
    "ui": ui.ui,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> NoReturn:
    """Run the command line; every DinolabError is a line on standard error, not a traceback."""
    interrupt.listen()
    try:
        app(prog_name="dinolab")
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(BAD_INPUT)
    except DinolabError as error:
        print(error, file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(DONE)
