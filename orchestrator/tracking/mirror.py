"""MLflow: a mirror of a run root that people can browse and compare.

One run for the study, below it one for each arm, below that one for each seed. All of it is made
from the run root: a mirror that is behind, or deleted, is made whole by whoever mirrors next.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from pydantic import ValidationError

from ablations.stated import WORDS, Stated, stated
from dashboards.tables.derived import STATED
from dashboards.tables.reading import StudyRun
from orchestrator.tracking.contents import (
    LONGEST_TAG,
    arm_note,
    arm_numbers,
    arm_parameters,
    is_at_end,
    shortened,
    study_note,
    study_numbers,
    verdicts_text,
)
from orchestrator.tracking.experiment import own_experiment, root_identity
from orchestrator.tracking.pictures import log_pictures
from orchestrator.tracking.provenance import Provenance, without_credentials
from orchestrator.tracking.runs import ENDED, REASON, STATUS, MlflowRun, StudyRuns
from orchestrator.tracking.store import (
    artifact_location,
    identity,
    in_time,
    is_gone,
    open_store,
    shown,
    tracking_uri,
)
from orchestrator.tracking.views import views, write_views
from trainers.config import TrainConfig, explain, flatten
from trainers.errors import InputError
from trainers.runs.newer_records import NewerRecords
from trainers.runs.records import Record
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import Store

VERDICTS = "dinolab.verdicts"
"""Tag: the labels of the hypotheses of a study, or of those that name an arm."""


class Mirror:
    """The MLflow runs of one study of a run root that has a store in MLflow.

    `say` gets a line for what was mended in the store. Raises InputError when the store cannot be
    reached or opened. After any error of a method another Mirror is to be made: what was known of
    MLflow's side may not be so.
    """

    def __init__(self, study: str, store: Store, say: Callable[[str], None]) -> None:
        self.study, self.store = study, store
        self.uri = tracking_uri(store.local)
        self.readers: dict[str, NewerRecords] = {}
        self.provenance = Provenance(store, study)
        root = root_identity(store)

        def work() -> tuple[MlflowClient, StudyRuns]:
            client = open_store(store.local, say)
            self.opened = identity(self.uri)
            try:
                experiment = own_experiment(
                    client, study, root, lambda name: artifact_location(store.local, name), say
                )
                return client, StudyRuns(client, experiment, root, study)
            except MlflowException:
                if not self.is_gone():
                    raise
                say(self.gone)
                return work()

        self.client, self.runs = in_time(self.uri, work)

    def study_run(self) -> MlflowRun:
        """The run at the top."""
        return self.runs.get("", "", self.study, None)

    def arm_run(self, arm: str) -> MlflowRun:
        """The run of an arm; it holds means and deviations over seeds."""
        return self.runs.get(arm, "", arm, self.study_run())

    def is_gone(self) -> bool:
        """Whether the store was deleted: another Mirror makes it anew."""
        return is_gone(self.uri, self.opened)

    @property
    def gone(self) -> str:
        """What is said of a store that is."""
        return f"MLflow store {shown(self.uri)} is gone: it is made anew"

    def sync(self, key: str, arms: Sequence[str], seed: int) -> None:
        """Log what the trial holds and its run in each arm does not, and how the trial ended.

        Raises InputError, one line, when a file of the trial is damaged.
        """
        trial = StoredTrial(self.store, key)
        content = trial.config()
        if content is None:
            return
        result = trial.finished()
        status, tags = _ending(trial, result)
        tags |= self.provenance.tags(key, result)
        behind = [arm for arm in arms if not self._is_whole(arm, key, status, tags)]
        if not behind:
            return
        parameters = _parameters(content, f"{self.store.shown}/{trial.config_key}")
        records, is_anew = self._records(trial, result)
        runs = [
            self.runs.get(arm, key, f"{arm} · seed {seed}", self.arm_run(arm)) for arm in behind
        ]
        for run in runs:
            if is_anew:
                run.read_anew()
        for run in runs:
            self.runs.set_parameters(run, parameters)
            if not self.runs.log(run, records):
                # Another attempt has other values, as on another machine: from the first one again.
                self.runs.replace(run)
                self.readers.pop(key, None)
                self.sync(key, arms, seed)
                return
            self.provenance.log(self.client, run, tags, parameters)
            self.runs.tag(run, tags)
            self.runs.set_status(run, status)
        if tags[ENDED]:
            self.readers.pop(key, None)

    def log_pictures(self, key: str, arms: Sequence[str]) -> None:
        """Log pictures of a trial that has a result, and was synced, to its runs.

        Raises InputError, one line, when a file of the trial is damaged.
        """
        found = (self.runs.find(arm, key) for arm in arms)
        if lacking := [run for run in found if run is not None and run.lacks_pictures]:
            log_pictures(self.client, self.runs, StoredTrial(self.store, key), lacking)

    def log_teacher(self, key: str, arms: Sequence[str]) -> None:
        """Log the teacher of a trial that has come to its end, and was synced, to its runs.

        Raises InputError, one line, when its checkpoint is damaged.
        """
        found = (self.runs.find(arm, key) for arm in arms)
        if lacking := [run for run in found if run is not None and run.lacks_teacher]:
            # It takes a second to import.
            from orchestrator.tracking.teachers import log_teacher

            log_teacher(self.client, self.runs, self.store, key, lacking)

    def finish(self, study: StudyRun, verdicts: Mapping[str, Any]) -> None:
        """Log what each arm came to, the verdicts as judged, the files of the study, and views."""
        words = stated(study.chain)
        for arm in study.arms:
            ended = [one for one in (study.runs[arm, i] for i in study.seeds) if is_at_end(one)]
            if not ended and self.runs.find(arm, "") is None:
                continue
            of_arm = {
                name: one for name, one in words.items() if arm in study.hypotheses[name].arms
            }
            tags = {
                "dinolab.seeds": str(len(ended)),
                "dinolab.change": str(study.entry.arms[arm].change),
                VERDICTS: verdicts_text(verdicts, of_arm),
                STATED: _words_text(of_arm),
                MLFLOW_RUN_NOTE: arm_note(study, verdicts, arm),
            }
            parameters = arm_parameters(study, arm)
            run = self.runs.hold(self.arm_run(arm), arm_numbers(study, arm), tags, parameters)
            self.runs.set_status(run, "FINISHED" if len(ended) == len(study.seeds) else "FAILED")
        tags = {
            "dinolab.hypotheses_sha256": study.entry.hypotheses_sha256,
            "dinolab.registration": f"{study.entry.number} {study.entry.digest}",
            VERDICTS: verdicts_text(verdicts, words),
            STATED: _words_text(words),
            MLFLOW_RUN_NOTE: study_note(study, verdicts),
        }
        run = self.runs.hold(self.study_run(), study_numbers(verdicts), tags)
        self._upload(run)
        runs = {arm: one.run_id for (arm, key), one in self.runs.runs.items() if not key}
        write_views(self.client, self.runs.experiment, views(study, runs))
        whole = all(is_at_end(one) for one in study.runs.values())
        self.runs.set_status(run, "FINISHED" if whole else "FAILED")

    def _is_whole(self, arm: str, key: str, status: str, tags: Mapping[str, str]) -> bool:
        run, above = self.runs.find(arm, key), self.runs.find(arm, "")
        return (
            run is not None
            and above is not None
            # Another stands for its arm when a driver was stopped while it replaced that.
            and run.tags.get(MLFLOW_PARENT_RUN_ID) == above.run_id
            and bool(tags[ENDED])
            and all(run.tags.get(name, "") == text for name, text in tags.items())
            and run.status == status
        )

    def _records(
        self, trial: StoredTrial, result: Mapping[str, Any] | None
    ) -> tuple[list[Record], bool]:
        """Records that were not read yet, and whether they begin with the first one."""
        if result is not None:
            # Once more from the first one, with their digests.
            return trial.records(), True
        return self.readers.setdefault(trial.key, NewerRecords(trial)).read()

    def _upload(self, run: MlflowRun) -> None:
        folder = f"studies/{self.study}/"
        with tempfile.TemporaryDirectory(prefix="dinolab-") as scratch:
            for entry in self.store.list(folder.rstrip("/")):
                place = Path(scratch, entry.key.removeprefix(folder))
                place.parent.mkdir(parents=True, exist_ok=True)
                self.store.get_file(entry.key, place)
            self.client.log_artifacts(run.run_id, scratch)


def _ending(trial: StoredTrial, result: Mapping[str, Any] | None) -> tuple[str, dict[str, str]]:
    """The status of a trial in MLflow's words, and the tags that say how it ended."""
    if result is not None:
        status = "FAILED" if result["status"] == "diverged" else "FINISHED"
        return status, _ended(str(result["status"]), str(result.get("reason") or ""), result)
    if failure := trial.failed():
        return "FAILED", _ended("failed", failure.message, [len(trial.attempts()), failure.message])
    return "RUNNING", {STATUS: "", REASON: "", ENDED: ""}


def _ended(status: str, reason: str, content: object) -> dict[str, str]:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {STATUS: status, REASON: reason, ENDED: digest}


def _words_text(of: Mapping[str, Stated]) -> str:
    """Which hypotheses were stated how, in words that MLflow takes as a tag."""
    names: dict[str, list[str]] = {}
    for name, one in of.items():
        names.setdefault(one.word, []).append(name)
    text = "; ".join(
        f"{word}: {', '.join(names[word])}" for word in reversed(WORDS) if word in names
    )
    return shortened(text, LONGEST_TAG)


def _parameters(content: bytes, shown: str) -> dict[str, str]:
    try:
        config = TrainConfig.model_validate_json(content)
    except ValidationError as error:
        raise InputError(f"{shown} is damaged: {explain(error)[0]}") from None
    knobs = {knob: str(value) for knob, value in flatten(config).items()}
    return knobs | {"data.source": without_credentials(config.data.source)}
