"""Of which data and which code a run is: its data set in MLflow, and tags."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from mlflow import MlflowClient
from mlflow.data.schema import TensorDatasetSchema
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.types import Schema, TensorSpec
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_GIT_DIRTY,
)
from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE, MAX_DATASET_NAME_SIZE

from ablations.registration import Entry
from dashboards.tables.chain import find_chain
from orchestrator.tracking.runs import MlflowRun
from trainers.errors import InputError
from trainers.system.store import Store

DATA = "dinolab.data"
"""Tag: SHA-256 of the data set, which is an input of the run once this is set."""

CODE = "dinolab.code"
"""Tag: digest of the versions of all modules that compute a trial."""


class Provenance:
    """What registrations of a study, and results, say of the data and the code of its trials."""

    def __init__(self, store: Store, study: str) -> None:
        self.store, self.study = store, study

    def tags(self, key: str, result: Mapping[str, Any] | None) -> dict[str, str]:
        """Data, code and commit of a trial, as far as they are known.

        The commit is that of the registration under which its result was computed; empty where
        that was in another study, or is not said.
        """
        entry = self._entries.get(key)
        data, code, git = None, None, {}
        if entry is not None:
            data, code, git = entry.dataset.get("digest"), entry.code, entry.git
        if result is not None:
            data, code = result.get("data") or data, result.get("code") or code
            of = next(reversed(result.get("registrations", [])), "")
            git = next((one.git for one in self._chain if one.digest == of), {})
        digest = code and hashlib.sha256(json.dumps(code, sort_keys=True).encode()).hexdigest()
        found = {DATA: data, CODE: digest and digest[:12]}
        known = {name: str(text) for name, text in found.items() if text}
        dirty = str(git["dirty"]).lower() if "dirty" in git else ""
        return known | {MLFLOW_GIT_COMMIT: str(git.get("commit") or ""), MLFLOW_GIT_DIRTY: dirty}

    def log(
        self,
        client: MlflowClient,
        run: MlflowRun,
        tags: Mapping[str, str],
        parameters: Mapping[str, str],
    ) -> None:
        """Make the data set of `tags` an input of the run, if need be; `tags` are set after it.

        MLflow has a data set of one name and digest once, and each input of a run once.
        """
        if DATA not in tags or run.tags.get(DATA) == tags[DATA]:
            return
        entry = self._entries.get(run.name[1])
        data = _data_set(tags[DATA], parameters, {} if entry is None else entry.dataset)
        used = DatasetInput(data, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])
        client.log_inputs(run.run_id, datasets=[used])

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        """The newest registration that names a trial, by its key."""
        return {trial.key: entry for entry in self._chain for trial in entry.trials}

    @cached_property
    def _chain(self) -> Sequence[Entry]:
        # One that cannot be read is said by those who read it.
        with contextlib.suppress(InputError):
            return find_chain(self.store, self.study)
        return ()


def _data_set(digest: str, parameters: Mapping[str, str], registered: Mapping[str, Any]) -> Dataset:
    source = parameters["data.source"]
    kind, is_address, _ = source.partition(":")
    if source.startswith("/") or not is_address:
        kind = "local" if "/" in source else "dinolab"
    side = int(parameters["data.image_size"]) or -1
    images = TensorSpec(np.dtype("uint8"), (-1, side, side, 3), "image")
    profile = {name: registered[name] for name in _COUNTS if name in registered}
    return Dataset(
        name=(source.rstrip("/").rpartition("/")[2] or source)[:MAX_DATASET_NAME_SIZE],
        digest=digest[:MAX_DATASET_DIGEST_SIZE],
        source_type=kind,
        source=json.dumps({"uri": source}),
        schema=json.dumps(TensorDatasetSchema(features=Schema([images])).to_dict()),
        profile=json.dumps({**profile, "sha256": digest}),
    )


_COUNTS = ("images", "train", "test", "labelled")


def without_credentials(source: str) -> str:
    """`source` as it was given, but for user, password and options of an address."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
