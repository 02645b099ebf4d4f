"""MLflow: a mirror of the run folder that people can browse and compare.

One run for the study, below it one for each arm, below that one for each seed. The driver writes
all of it, from the run folder: an interrupted or unreachable mirror is made whole by the next
`dinolab run`, and each (metric, step) is logged once.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from pydantic import ValidationError

from orchestrator.tracking.store import artifact_location, in_time, open_store, tracking_uri
from trainers.config import TrainConfig, explain, flatten
from trainers.errors import InputError
from trainers.metrics import OF_THE_MACHINE
from trainers.runs.stored_trial import StoredTrial

_METRICS_A_BATCH = 1000
_PARAMETERS_A_BATCH = 100
_MIRRORED = "dinolab.mirrored_step"


class MlflowReporter:
    """A Reporter (trainers/training/reporter.py) that writes into one MLflow run.

    Takes the summaries; values of single layers and heads stay in `results.parquet`.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        """See Reporter."""
        self.report_all([(step, metrics)])

    def report_all(self, records: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Log several steps in as few requests as can be, and the last of them as a tag."""
        now = int(time.time() * 1000)
        entities = [
            Metric(name, value, now, step)
            for step, metrics in records
            for name, value in metrics.items()
            if "@" not in name
        ]
        for start in range(0, len(entities), _METRICS_A_BATCH):
            batch = entities[start : start + _METRICS_A_BATCH]
            tags = [RunTag(_MIRRORED, str(batch[-1].step))]
            self.client.log_batch(self.run_id, metrics=batch, tags=tags)


class Mirror:
    """The MLflow runs of one study.

    `say` gets a line for what was mended in the store. Raises InputError when the store cannot be
    reached or opened.
    """

    def __init__(self, study: str, root: Path, say: Callable[[str], None]) -> None:
        self.uri = tracking_uri(root)
        self.study = study

        def work() -> tuple[MlflowClient, str, dict[tuple[str, str], Run]]:
            client = open_store(root, say)
            experiment = _experiment(client, study, artifact_location(root, study), say)
            found = client.search_runs([experiment], max_results=50_000)
            return client, experiment, {self._name(run): run for run in found}

        self.client, self.experiment, self.runs = in_time(self.uri, work)

    @staticmethod
    def _name(run: Run) -> tuple[str, str]:
        """What a run mirrors: ("", "") the study, (arm, "") an arm, (arm, key) a trial."""
        tags = run.data.tags
        return tags.get("dinolab.arm", ""), tags.get("dinolab.key", "")

    def _run(self, arm: str, key: str, title: str, parent: str | None) -> Run:
        name = (arm, key)
        if name not in self.runs:
            tags = {"dinolab.study": self.study, "dinolab.arm": arm, "dinolab.key": key}
            if parent is not None:
                tags[MLFLOW_PARENT_RUN_ID] = parent
            self.runs[name] = self.client.create_run(self.experiment, tags=tags, run_name=title)
        return self.runs[name]

    def study_run(self) -> Run:
        """The run at the top."""
        return self._run("", "", self.study, None)

    def arm_run(self, arm: str) -> Run:
        """The run of an arm; it holds means and deviations over seeds."""
        return self._run(arm, "", arm, self.study_run().info.run_id)

    def sync(self, arm: str, seed: int, trial: StoredTrial) -> None:
        """Log what the trial's folder holds and its run does not, and how the trial ended."""
        written, records = trial.config(), trial.records()
        if written is None or not records:
            return
        name = (arm, trial.key)
        is_new = name not in self.runs
        result = trial.finished()
        run = self._run(*name, f"{arm} · seed {seed}", self.arm_run(arm).info.run_id)
        run_id = run.info.run_id
        if is_new:
            try:
                config = TrainConfig.model_validate_json(written)
            except ValidationError as error:
                raise InputError(
                    f"{trial.shown}/config.json is damaged: {explain(error)[0]}"
                ) from None
            parameters = [Param(knob, str(value)) for knob, value in flatten(config).items()]
            for start in range(0, len(parameters), _PARAMETERS_A_BATCH):
                batch = parameters[start : start + _PARAMETERS_A_BATCH]
                self.client.log_batch(run_id, params=batch)
        mirrored = int(run.data.tags.get(_MIRRORED, -1))
        newer = [record for record in records if record[0] > mirrored]
        MlflowReporter(self.client, run_id).report_all(newer)
        if newer:
            run.data.tags[_MIRRORED] = str(newer[-1][0])
        if result and run.info.status == "RUNNING":
            self.client.set_tag(run_id, "dinolab.status", result["status"])
            if reason := result.get("reason"):
                self.client.set_tag(run_id, "dinolab.reason", reason)
            status = "FAILED" if result["status"] == "diverged" else "FINISHED"
            self.client.set_terminated(run_id, status)
            self.runs[name] = self.client.get_run(run_id)

    def finish(
        self, table: pd.DataFrame, lock: Mapping[str, Any], artifacts: Iterable[Path], whole: bool
    ) -> None:
        """Log each arm's mean and deviation over seeds, and the study's report and files."""
        last = table[table["layer"].isna() & ~table["metric"].str.startswith(OF_THE_MACHINE)]
        last = last[last["step"] == last.groupby(["arm", "seed"])["step"].transform("max")]
        for arm, rows in last.groupby("arm"):
            run_id = self.arm_run(str(arm)).info.run_id
            over_seeds = rows.groupby("metric")["value"].agg(["mean", "std", "count"])
            now = int(time.time() * 1000)
            entities = [
                Metric(f"{metric}/{name}", float(value), now, 0)
                for metric, row in over_seeds.iterrows()
                for name, value in (("mean", row["mean"]), ("sd", row["std"]))
                if pd.notna(value)
            ]
            for start in range(0, len(entities), _METRICS_A_BATCH):
                self.client.log_batch(run_id, metrics=entities[start : start + _METRICS_A_BATCH])
            self.client.set_tag(run_id, "dinolab.seeds", str(rows["seed"].nunique()))
            self.client.set_tag(run_id, "dinolab.change", str(lock["arms"][arm]["change"]))
            self._terminate(str(arm), whole)
        run_id = self.study_run().info.run_id
        self.client.set_tag(run_id, "dinolab.hypotheses_sha256", lock["hypotheses_sha256"])
        for path in artifacts:
            self.client.log_artifact(
                run_id, str(path), path.parent.name if _is_figure(path) else ""
            )
        self._terminate("", whole)

    def _terminate(self, arm: str, whole: bool) -> None:
        run_id = self.runs[arm, ""].info.run_id
        self.client.set_terminated(run_id, "FINISHED" if whole else "FAILED")


def _is_figure(path: Path) -> bool:
    return path.parent.name == "figures"


def _experiment(
    client: MlflowClient, name: str, artifacts: str | None, say: Callable[[str], None]
) -> str:
    """The identifier of the experiment of that name: made, or restored, if need be."""
    known = client.get_experiment_by_name(name)
    if known is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:
            # Another process may have been first.
            known = client.get_experiment_by_name(name)
            if known is None:
                raise
    if known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
        say(f"MLflow experiment {name} had been deleted: it is restored")
    return str(known.experiment_id)
