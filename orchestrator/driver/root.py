"""The run root of a driver: whether it can be written, who is at a study, which trials it has."""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ablations.lock import Lock
from orchestrator.plan import Plan
from trainers.errors import RootError
from trainers.runs.left_behind import left_behind
from trainers.runs.trial import TrialFolder
from trainers.system.atomic import read_object, replace_json

TAKEN_FROM = "taken_from.json"
"""In a trial's folder, when it was trained for another study: the name of that."""


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


def finished_in(root: Path, key: str) -> Path | None:
    """The folder of the finished trial of that key in any study of `root`, or None.

    Raises InputError, one line, when a result of that key is damaged.
    """
    for result in root.glob(f"*/trials/{key}/result.json"):
        if TrialFolder(result.parent).finished():
            return result.parent
    return None


def reuse_finished(plan: Plan, root: Path, folder: Path) -> None:
    """Copy finished trials of other studies in the same root, each with a note of where from."""
    for trial in plan.missing(folder):
        if found := finished_in(root, trial.key):
            place_of_copy = folder / "trials" / trial.key
            with tempfile.TemporaryDirectory(dir=folder, prefix=".copy-") as scratch:
                copy = Path(scratch) / trial.key
                shutil.copytree(found, copy, ignore=shutil.ignore_patterns("lock"))
                if not (copy / TAKEN_FROM).exists():
                    replace_json(copy / TAKEN_FROM, {"study": found.parent.parent.name})
                shutil.rmtree(place_of_copy, ignore_errors=True)
                place_of_copy.parent.mkdir(exist_ok=True)
                copy.replace(place_of_copy)


def taken_text(plan: Plan, folder: Path) -> str:
    """How many finished trials were trained for which other studies; empty when none were."""
    notes = [folder / "trials" / trial.key / TAKEN_FROM for trial in plan.trials]
    studies = [str(read_object(note).get("study", "unknown")) for note in notes if note.is_file()]
    if not studies:
        return ""
    names = ", ".join(sorted(set(studies)))
    return f"{len(studies)} taken from other studies of this root: {names}"


def left_behind_text(plan: Plan, folder: Path, earlier: Lock | None) -> str:
    """Which missing trials other code has finished, in words; empty when there are none.

    `earlier` is the lock of the study as it was, which knows the commit if it is of that code.
    """
    missing = plan.missing(folder)
    found = left_behind(
        [(trial.key, trial.config, trial.digest) for trial in missing], folder / "trials"
    )
    if found is None:
        return ""
    then = ""
    if earlier and {trial.key for trial in earlier.trials} & set(found.found):
        dirty = ", with changes that were not committed" if earlier.git.get("dirty") else ""
        if commit := earlier.git.get("commit"):
            then = f"commit {str(commit)[:12]}{dirty}"
    return found.sentence(len(missing), then)
