"""The command ui: the MLflow UI on a run root."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from orchestrator.cli.exit_codes import DONE, FAILED
from orchestrator.cli.options import DEFAULT_ROOT, RootOption, absolute_root
from orchestrator.cli.rendering import make_console
from trainers.errors import InputError, RootError, printable

if TYPE_CHECKING:
    from orchestrator.tracking.views import Link


def ui(
    study: Annotated[
        str, typer.Argument(help="A study, whose hypotheses are listed too.", show_default=False)
    ] = "",
    root: RootOption = DEFAULT_ROOT,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
    is_to_open: Annotated[
        bool, typer.Option("--open", help="Open the comparison of the arms in a browser.")
    ] = False,
) -> None:
    """Open the MLflow UI on the store of a run root; Ctrl-C ends it.

    Prints links to what people compare: claims and verdicts, curves by arm, arms side by side.
    """
    from orchestrator.tracking.store import (
        check_store,
        in_time,
        open_store,
        shown,
        tracking_uri,
    )
    from orchestrator.tracking.views import ARMS_COMPARED, links
    from orchestrator.tracking.where import folder_of
    from trainers.system.store import open_store as open_root

    console = make_console()
    root = absolute_root(root, console)
    folder = folder_of(root)
    is_given = bool(os.environ.get("MLFLOW_TRACKING_URI"))
    if folder is not None and not is_given and not (folder / "mlflow.db").exists():
        raise InputError(f"{root} has no MLflow store yet: run a study first, or give --root")
    check_store(folder)
    uri = tracking_uri(folder)
    is_server = uri.startswith(("http://", "https://"))
    address = shown(uri) if is_server else f"http://127.0.0.1:{port}"

    def look() -> "dict[str, list[Link]]":
        client = open_store(folder, console.print)
        with contextlib.suppress(RootError):  # a server can be looked at without a run root
            return links(client, address, open_root(root), study)
        return {}

    found = in_time(uri, look)
    if study and not found:
        raise InputError(
            f"study {study} is not in MLflow; `dinolab mirror {study}` writes it there, and "
            "without a name all studies that are there are listed"
        )
    if is_server:
        console.print(f"the MLflow server at {shown(uri)} has its UI there")
    else:
        console.print(f"MLflow UI at {address} (Ctrl-C ends it)")
    pages = [link for of_study in found.values() for link in of_study]
    for name, of_study in found.items():
        console.print(f"study {name}")
        for link in of_study:
            console.print(f"  {printable(link.shows)}: {link.address}", soft_wrap=True)
    compared = [link for link in pages if link.shows == ARMS_COMPARED]
    first = compared[0].address if compared else address
    if is_server:
        if is_to_open:
            webbrowser.open(first)
        return
    arguments = ["-m", "mlflow", "ui", "--backend-store-uri", uri]
    arguments += ["--host", "127.0.0.1", "--port", str(port)]
    if not is_to_open:
        os.execv(sys.executable, [sys.executable, *arguments])
    _serve_and_open([sys.executable, *arguments], address, first)


def _serve_and_open(command: list[str], address: str, page: str) -> NoReturn:
    """Run the server, and open a page of it in a browser once it answers."""
    with subprocess.Popen(command) as server:
        try:
            while server.poll() is None and not _answers(address):
                time.sleep(0.2)
            if server.poll() is None:
                webbrowser.open(page)
            server.wait()
        finally:
            server.terminate()
    raise typer.Exit(FAILED if server.returncode else DONE)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except (OSError, urllib.error.URLError):
        return False
