"""MLflow: a mirror of a run root that people can browse and compare.

One run for the study, below it one for each arm, below that one for each seed. All of it is made
from the run root: a mirror that is behind, or deleted, is made whole by whoever mirrors next.
"""

import hashlib
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from pydantic import ValidationError

from ablations.stated import WORDS, Stated, stated
from ablations.verdicts.evidence import Run as Evidence
from dashboards.tables.derived import STATED
from dashboards.tables.reading import StudyRun
from orchestrator.tracking.experiment import own_experiment, root_identity
from orchestrator.tracking.runs import MlflowRun, StudyRuns
from orchestrator.tracking.store import (
    artifact_location,
    in_time,
    is_gone,
    open_store,
    tracking_uri,
)
from trainers.config import TrainConfig, explain, flatten
from trainers.errors import InputError
from trainers.metrics import OF_THE_MACHINE
from trainers.runs.newer_records import NewerRecords
from trainers.runs.records import Record
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import Store

STATUS, REASON = "dinolab.status", "dinolab.reason"
ENDED = "dinolab.ended"
"""Tag: digest of the result or the failure that the run mirrors, all of it; empty while it runs."""

LONGEST_TAG = 5000
"""Characters that every MLflow server takes as the value of a tag."""

WITHOUT_MEAN = (*OF_THE_MACHINE, "data/chain")
"""What the names of metrics begin with whose mean over seeds says nothing."""


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
        root = root_identity(store)

        def work() -> tuple[MlflowClient, StudyRuns]:
            client = open_store(store.local, say)
            experiment = own_experiment(
                client, study, root, lambda name: artifact_location(store.local, name), say
            )
            return client, StudyRuns(client, experiment, root, study)

        self.client, self.runs = in_time(self.uri, work)

    def study_run(self) -> MlflowRun:
        """The run at the top."""
        return self.runs.get("", "", self.study, None)

    def arm_run(self, arm: str) -> MlflowRun:
        """The run of an arm; it holds means and deviations over seeds."""
        return self.runs.get(arm, "", arm, self.study_run())

    def is_gone(self) -> bool:
        """Whether the store was deleted: another Mirror makes it anew."""
        return is_gone(self.uri)

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
            self.runs.tag(run, tags)
            self.runs.set_status(run, status)
        if tags[ENDED]:
            self.readers.pop(key, None)

    def finish(self, study: StudyRun) -> None:
        """Log each arm's mean and deviation over seeds, and the files of the study."""
        words = stated(study.chain)
        for arm in study.arms:
            runs = [study.runs[arm, seed] for seed in study.seeds]
            ended = [one for one in runs if _is_at_end(one)]
            if not ended and self.runs.find(arm, "") is None:
                continue
            run, means = self.arm_run(arm), over_seeds(ended)
            run.read_anew()
            if not self.runs.log(run, [(0, means)]):
                run = self.runs.replace(run)
                self.runs.log(run, [(0, means)])
            change = str(study.entry.arms[arm].change)
            of_arm = {
                name: one for name, one in words.items() if arm in study.hypotheses[name].arms
            }
            self.runs.tag(
                run,
                {
                    "dinolab.seeds": str(len(ended)),
                    "dinolab.change": change,
                    STATED: _words_text(of_arm),
                },
            )
            self.runs.set_status(run, "FINISHED" if len(ended) == len(study.seeds) else "FAILED")
        run = self.study_run()
        self.runs.tag(
            run,
            {
                "dinolab.hypotheses_sha256": study.entry.hypotheses_sha256,
                "dinolab.registration": f"{study.entry.number} {study.entry.digest}",
                STATED: _words_text(words),
            },
        )
        self._upload(run)
        whole = all(_is_at_end(one) for one in study.runs.values())
        self.runs.set_status(run, "FINISHED" if whole else "FAILED")

    def _is_whole(self, arm: str, key: str, status: str, tags: Mapping[str, str]) -> bool:
        run = self.runs.find(arm, key)
        return (
            run is not None
            and bool(tags[ENDED])
            and run.tags.get(ENDED) == tags[ENDED]
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


def over_seeds(runs: Sequence[Evidence]) -> dict[str, float]:
    """`NAME/mean` and `NAME/sd` over the last steps of `runs`; no deviation of a single one."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run.end.items():
            if "@" not in name and not name.startswith(WITHOUT_MEAN):
                values.setdefault(name, []).append(value)
    means = {f"{name}/mean": statistics.fmean(found) for name, found in values.items()}
    deviations = {
        f"{name}/sd": statistics.stdev(found) for name, found in values.items() if len(found) > 1
    }
    return means | deviations


def _is_at_end(run: Evidence) -> bool:
    """Whether a run came to its last step: one that diverged, failed or is missing did not."""
    return run.status in ("finished", "collapsed")


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
    return text if len(text) <= LONGEST_TAG else f"{text[: LONGEST_TAG - 1]}…"


def _parameters(content: bytes, shown: str) -> dict[str, str]:
    try:
        config = TrainConfig.model_validate_json(content)
    except ValidationError as error:
        raise InputError(f"{shown} is damaged: {explain(error)[0]}") from None
    return {knob: str(value) for knob, value in flatten(config).items()}
