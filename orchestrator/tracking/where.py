"""Which MLflow store a run root has, as far as that is known without MLflow: it takes seconds."""

import os
from pathlib import Path

from trainers.errors import InputError

TEACHERS = "DINOLAB_MLFLOW_TEACHERS"
"""Of which runs the teacher is logged as a model: `all`, which is the default, or `none`."""


def logs_teachers() -> bool:
    """Whether teachers are logged. Raises InputError, one line, when TEACHERS is something else."""
    given = os.environ.get(TEACHERS) or "all"
    if given not in ("all", "none"):
        raise InputError(f"{TEACHERS}={given!r}: give all or none")
    return given == "all"


def folder_of(root: str) -> Path | None:
    """The folder of a run root on this machine; None for one on object storage."""
    scheme, found, rest = root.partition("://")
    if found and scheme != "file":
        return None
    return Path(rest if found else root)


def has_store(root: Path | None) -> bool:
    """Whether a run root has a store: one on object storage (None) only where that is given."""
    return root is not None or bool(os.environ.get("MLFLOW_TRACKING_URI"))


def own_file(root: Path) -> Path:
    """The store of a run root that lies in it."""
    return root.resolve() / "mlflow.db"


def is_yet_to_be_made(root: Path | None) -> bool:
    """Whether it lies in the run root and is not there yet: nothing can be wrong with it."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    return root is not None and not given and not own_file(root).exists()
