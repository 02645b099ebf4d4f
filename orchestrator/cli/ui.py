"""The command ui: the MLflow UI on a run root."""

import os
import sys
from typing import Annotated

import typer

from orchestrator.cli.options import DEFAULT_ROOT, RootOption, absolute_root
from orchestrator.cli.rendering import make_console
from trainers.errors import InputError


def ui(
    root: RootOption = DEFAULT_ROOT,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
) -> None:
    """Open the MLflow UI on the store of a run root; Ctrl-C ends it."""
    from orchestrator.tracking.store import (
        check_store,
        in_time,
        open_store,
        shown,
        tracking_uri,
    )
    from orchestrator.tracking.where import folder_of

    console = make_console()
    root = absolute_root(root, console)
    folder = folder_of(root)
    is_given = bool(os.environ.get("MLFLOW_TRACKING_URI"))
    if folder is not None and not is_given and not (folder / "mlflow.db").exists():
        raise InputError(f"{root} has no MLflow store yet: run a study first, or give --root")
    check_store(folder)
    uri = tracking_uri(folder)
    in_time(uri, lambda: open_store(folder, console.print))
    if uri.startswith(("http://", "https://")):
        console.print(f"the MLflow server at {shown(uri)} has its UI there")
        return
    console.print(f"MLflow UI at http://127.0.0.1:{port} (Ctrl-C ends it)")
    arguments = ["-m", "mlflow", "ui", "--backend-store-uri", uri]
    arguments += ["--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *arguments])
