"""The MLflow experiment of one study of one run root, and how a root is told from another."""

import json
import uuid
from collections.abc import Callable

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from trainers.errors import InputError
from trainers.system.store import Store

ROOT = "dinolab.root"
"""Tag of experiments and runs: the identity of the run root that they mirror."""

IDENTITY = "root.json"
"""Key of the object that holds it."""


def root_identity(store: Store) -> str:
    """32 hex digits that a run root keeps for good, wherever it is moved; made if need be.

    Raises InputError, one line, when they are damaged.
    """
    new = {"id": uuid.uuid4().hex}
    if store.put(IDENTITY, json.dumps(new).encode(), if_absent=True):
        return new["id"]
    try:
        found = json.loads(store.get(IDENTITY) or b"")["id"]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, str) or not found.isalnum():
        raise InputError(
            f"{store.shown}/{IDENTITY} is corrupt: it must hold an id of letters and digits; "
            "restore it, or remove it: the mirror in MLflow is then made anew"
        )
    return found


def own_experiment(
    client: MlflowClient,
    study: str,
    root: str,
    place_of: Callable[[str], str | None],
    say: Callable[[str], None],
) -> str:
    """The identifier of the experiment of a study of `root`: made, or restored, if need be.

    It has the name of the study; where that is taken by another root, the root's in brackets too.
    `place_of` gives the place of the artifacts of an experiment. Raises whatever MLflow raises.
    """
    own_name = f"{study} ({root[:8]})"
    names = (own_name,) if client.get_experiment_by_name(own_name) else (study, own_name)
    for name in names:
        known = client.get_experiment_by_name(name)
        if known is None:
            try:
                return str(client.create_experiment(name, place_of(name), {ROOT: root}))
            except MlflowException:
                # Another process may have been first.
                known = client.get_experiment_by_name(name)
                if known is None:
                    raise
        if known.tags.get(ROOT) != root:
            if name == study:
                say(
                    f"MLflow experiment {study} belongs to another run root: this one's is "
                    f"{own_name}"
                )
            continue
        if known.lifecycle_stage == "deleted":
            client.restore_experiment(known.experiment_id)
            say(f"MLflow experiment {name} had been deleted: it is restored")
        return str(known.experiment_id)
    raise InputError(
        f"MLflow experiments {' and '.join(names)} are of another run root; rename one of them"
    )
