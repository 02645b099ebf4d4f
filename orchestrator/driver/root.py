"""The run root of a driver: whether it can be written, and who is at a study."""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.plan import Plan
from trainers.errors import RootError


def open_root(root: Path) -> Path:
    """`root`, made if need be. Raises RootError when it cannot be written."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise RootError(
            f"run root {root} cannot be written ({error.strerror}); choose another with --root"
        ) from error
    return root


@contextlib.contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Hold a study's folder. Raises RootError when another `dinolab run` is at it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".driver").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RootError(
                f"{folder} is being run by another dinolab; wait for it, or stop it first"
            ) from None
        yield


def reuse_finished(plan: Plan, root: Path, folder: Path) -> int:
    """Copy finished trials of other studies in the same root; returns how many."""
    reused = 0
    for trial in plan.missing(folder):
        for result in root.glob(f"*/trials/{trial.key}/result.json"):
            place_of_copy = folder / "trials" / trial.key
            with tempfile.TemporaryDirectory(dir=folder, prefix=".copy-") as scratch:
                copy = Path(scratch) / trial.key
                shutil.copytree(result.parent, copy, ignore=shutil.ignore_patterns("lock"))
                shutil.rmtree(place_of_copy, ignore_errors=True)
                place_of_copy.parent.mkdir(exist_ok=True)
                copy.replace(place_of_copy)
            reused += 1
            break
    return reused
