"""The MLflow runs of one study: found by what they mirror, every number in them once.

MLflow has no request that says "log this unless it is there", and an answer can be lost after the
work was done. So the time of a number is made of its step, which lets MLflow know a batch that
comes again; each batch carries how far it goes, and a digest of everything up to there; and what
another process, or a lost answer, may have logged beyond that is asked for before more is logged.
"""

import hashlib
import math
import struct
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from orchestrator.tracking.experiment import ROOT
from trainers.metrics import OF_THE_MACHINE
from trainers.runs.stored_trial import RESULT_STATUSES

Records = Sequence[tuple[int, Mapping[str, float]]]
"""Steps, ascending, and the metrics of each."""

METRICS_A_BATCH = 900
"""MLflow takes 1,000 things at once, tags among them."""

_NONE: Mapping[str, str] = types.MappingProxyType({})

_PARAMETERS_A_BATCH = 100
_RUNS_A_PAGE = 1000

STUDY, ARM, KEY = "dinolab.study", "dinolab.arm", "dinolab.key"
STATUS, REASON = "dinolab.status", "dinolab.reason"
ENDED = "dinolab.ended"
"""Tag: digest of the result or the failure that the run mirrors, all of it; empty while it runs."""

MIRRORED = "dinolab.mirrored_step"
"""Tag: every number up to this step is logged."""

DIGEST = "dinolab.mirrored_digest"
"""Tag: digest of those numbers, without those of the machine."""

TEACHER = "dinolab.teacher"
"""Tag: the beginning of ENDED, and which model the teacher of the run is, or why there is none."""

PICTURES = "dinolab.pictures"
"""Tag: the beginning of ENDED, and how many pictures the run has."""

REPLACED = "dinolab.replaced"
"""Tag of a deleted run: another stands for it."""


@dataclass
class MlflowRun:
    """A run as MLflow has it: `name` is ("", "") of a study, (arm, "") of an arm, (arm, key)."""

    run_id: str
    name: tuple[str, str]
    title: str
    started: int
    status: str
    tags: dict[str, str]
    parameters: dict[str, str]
    metrics: frozenset[str]
    """names of what it holds, by the time it was found"""
    is_sure: bool
    """that it holds nothing beyond `step`"""
    digest: Any = field(default_factory=hashlib.sha256)
    is_checked: bool = True
    """that the records read are those that it holds, up to `step`"""

    @property
    def step(self) -> int:
        """The step up to which every number is logged; -1 when none is."""
        return int(self.tags.get(MIRRORED, -1))

    @property
    def end(self) -> str:
        """The beginning of ENDED."""
        return self.tags.get(ENDED, "")[:12]

    @property
    def lacks_teacher(self) -> bool:
        """Whether it has come to its end, and its teacher is not logged."""
        has_ended = self.tags.get(STATUS) in ("finished", "collapsed")
        return has_ended and not self.tags.get(TEACHER, "").startswith(self.end)

    @property
    def lacks_pictures(self) -> bool:
        """Whether it has a result, and its pictures are not logged."""
        has_result = self.tags.get(STATUS) in RESULT_STATUSES
        return has_result and not self.tags.get(PICTURES, "").startswith(self.end)

    def read_anew(self) -> None:
        """Records come from the first one again, perhaps from another attempt."""
        self.digest = hashlib.sha256()
        self.is_checked = self.step < 0

    def unlogged(self, records: Records) -> list[tuple[int, dict[str, float]]] | None:
        """Those of `records` that are not logged yet; None when others are logged instead."""
        fresh = []
        for step, metrics in records:
            shown = {name: value for name, value in metrics.items() if "@" not in name}
            if step > self.step:
                if not self.is_checked:
                    return None
                fresh.append((step, shown))
            elif not self.is_checked:
                add(self.digest, step, shown)
                if step == self.step:
                    if self.digest.hexdigest() != self.tags.get(DIGEST):
                        return None
                    self.is_checked = True
        return fresh


class StudyRuns:
    """The runs of one study of one root in its experiment."""

    def __init__(self, client: MlflowClient, experiment: str, root: str, study: str) -> None:
        self.client = client
        self.experiment = experiment
        self.tags = {ROOT: root, STUDY: study}
        self.runs: dict[tuple[str, str], MlflowRun] = {}
        for run in self._search(f"tags.`{ROOT}` = '{root}'"):
            self._keep(run)

    def find(self, arm: str, key: str) -> MlflowRun | None:
        """The run that mirrors an arm, or a trial of it, if there is one."""
        return self.runs.get((arm, key))

    def get(self, arm: str, key: str, title: str, parent: MlflowRun | None) -> MlflowRun:
        """The same, made if need be, below `parent`."""
        run = self.runs.get((arm, key)) or self._make(arm, key, title, parent)
        above = {} if parent is None else {MLFLOW_PARENT_RUN_ID: parent.run_id}
        self.tag(run, above)
        return run

    def replace(self, run: MlflowRun) -> MlflowRun:
        """An empty run in the place of one that holds what is not so any more."""
        parent = run.tags.get(MLFLOW_PARENT_RUN_ID)
        self._remove(run)
        del self.runs[run.name]
        above = next((one for one in self.runs.values() if one.run_id == parent), None)
        new = self._make(*run.name, run.title, above)
        for one in self.runs.values():
            if one.tags.get(MLFLOW_PARENT_RUN_ID) == run.run_id:
                self.tag(one, {MLFLOW_PARENT_RUN_ID: new.run_id})
        return new

    def hold(
        self,
        run: MlflowRun,
        numbers: Mapping[str, float],
        tags: Mapping[str, str],
        parameters: Mapping[str, str] = _NONE,
    ) -> MlflowRun:
        """A run that holds these numbers and parameters and no others: `run`, or one in its place.

        MLflow takes back neither a number nor a parameter.
        """
        run.read_anew()
        is_so = run.metrics <= numbers.keys() and run.parameters.items() <= parameters.items()
        if not is_so or not self.log(run, [(0, numbers)]):
            run = self.replace(run)
            self.log(run, [(0, numbers)])
        self.tag(run, tags, parameters)
        return run

    def tag(
        self, run: MlflowRun, tags: Mapping[str, str], parameters: Mapping[str, str] = _NONE
    ) -> None:
        """Set tags, those that are not set already, and at most 100 parameters, those it lacks."""
        new = {name: text for name, text in tags.items() if run.tags.get(name, "") != text}
        missing = {name: one for name, one in parameters.items() if name not in run.parameters}
        if new or missing:
            self.client.log_batch(
                run.run_id,
                params=[Param(*pair) for pair in missing.items()],
                tags=[RunTag(*pair) for pair in new.items()],
            )
            run.tags |= new
            run.parameters |= missing

    def set_parameters(self, run: MlflowRun, parameters: Mapping[str, str]) -> None:
        """Log those parameters that the run lacks."""
        missing = [Param(*pair) for pair in parameters.items() if pair[0] not in run.parameters]
        for start in range(0, len(missing), _PARAMETERS_A_BATCH):
            batch = missing[start : start + _PARAMETERS_A_BATCH]
            self.client.log_batch(run.run_id, params=batch)
            run.parameters |= {one.key: one.value for one in batch}

    def log(self, run: MlflowRun, records: Records) -> bool:
        """Log of `records` what is not logged yet, in as few requests as can be.

        False, and nothing is logged, when the run holds other values: it is to be replaced.
        """
        fresh = run.unlogged(records)
        if fresh is None:
            return False
        known = {} if run.is_sure or not fresh else self._beyond(run, fresh)
        for step, metrics in fresh:
            for name, value in metrics.items():
                if not name.startswith(OF_THE_MACHINE) and not _same(
                    known.get((name, step), value), value
                ):
                    return False
        for batch, tags in _batches(fresh, run.digest):
            metrics_left = [
                # Made of the step alone: MLflow knows a number that comes again by its time too.
                Metric(name, value, run.started + step, step)
                for step, name, value in batch
                if (name, step) not in known
            ]
            self.client.log_batch(
                run.run_id, metrics=metrics_left, tags=[RunTag(*pair) for pair in tags.items()]
            )
            run.tags |= tags
        run.is_sure = run.is_sure or bool(fresh)
        return True

    def set_status(self, run: MlflowRun, status: str) -> None:
        """Let a run be RUNNING, FINISHED, FAILED or KILLED."""
        if status == run.status:
            return
        if status == "RUNNING":
            self.client.update_run(run.run_id, status=status)
        else:
            self.client.set_terminated(run.run_id, status)
        run.status = status

    def _beyond(
        self, run: MlflowRun, fresh: Sequence[tuple[int, Mapping[str, float]]]
    ) -> dict[tuple[str, int], float]:
        """What MLflow has of the next batch, whoever logged it."""
        # No batch that may have been logged goes further: each is one step, or has no more numbers.
        names: set[str] = set()
        numbers = 0
        for _step, metrics in fresh:
            if numbers > METRICS_A_BATCH:
                break
            names |= metrics.keys()
            numbers += len(metrics)
        return {
            (name, metric.step): metric.value
            for name in sorted(names & run.metrics)
            for metric in self.client.get_metric_history(run.run_id, name)
        }

    def _make(self, arm: str, key: str, title: str, parent: MlflowRun | None) -> MlflowRun:
        tags = {**self.tags, ARM: arm, KEY: key}
        if parent is not None:
            tags[MLFLOW_PARENT_RUN_ID] = parent.run_id
        self._keep(self.client.create_run(self.experiment, tags=tags, run_name=title), is_new=True)
        # Another driver of the same study may have made one at the same time.
        for run in self._search(f"tags.`{KEY}` = '{key}'"):
            self._keep(run)
        return self.runs[arm, key]

    def _keep(self, run: Run, *, is_new: bool = False) -> None:
        """Remember a run. Of two that mirror one thing, the one with the lesser identifier stays.

        So all drivers choose the same one, and each makes it whole.
        """
        tags = dict(run.data.tags)
        if REPLACED in tags:
            # Whoever replaced it was stopped before this, or its experiment was restored.
            self.client.delete_run(run.info.run_id)
            return
        found = MlflowRun(
            run_id=run.info.run_id,
            name=(tags.get(ARM, ""), tags.get(KEY, "")),
            title=run.info.run_name,
            started=run.info.start_time,
            status=run.info.status,
            tags=tags,
            parameters=dict(run.data.params),
            metrics=frozenset(run.data.metrics),
            is_sure=is_new,
        )
        found.read_anew()
        known = self.runs.setdefault(found.name, found)
        if known.run_id != found.run_id:
            known, other = sorted((known, found), key=lambda one: one.run_id)
            self._remove(other)
            self.runs[found.name] = known

    def _remove(self, run: MlflowRun) -> None:
        # Deleted runs come back with a deleted experiment that is restored.
        self.client.set_tag(run.run_id, REPLACED, "true")
        self.client.delete_run(run.run_id)

    def _search(self, condition: str) -> Iterator[Run]:
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], condition, max_results=_RUNS_A_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return


def _batches(
    records: Sequence[tuple[int, Mapping[str, float]]], digest: Any
) -> Iterator[tuple[list[tuple[int, str, float]], dict[str, str]]]:
    """Numbers that go together, whole steps where they fit, and the tags that go with them."""
    batch: list[tuple[int, str, float]] = []
    tags: dict[str, str] = {}
    for step, metrics in records:
        if batch and len(batch) + len(metrics) > METRICS_A_BATCH:
            yield batch, tags
            batch = []
        batch += [(step, name, value) for name, value in metrics.items()]
        while len(batch) > METRICS_A_BATCH:
            # Of one step, which is not whole yet.
            yield batch[:METRICS_A_BATCH], {}
            batch = batch[METRICS_A_BATCH:]
        add(digest, step, metrics)
        tags = {MIRRORED: str(step), DIGEST: digest.hexdigest()}
    if batch:
        yield batch, tags


def add(digest: Any, step: int, metrics: Mapping[str, float]) -> None:
    """Put the numbers of a step into a digest, but not those of the machine."""
    for name in sorted(metrics):
        if not name.startswith(OF_THE_MACHINE):
            digest.update(f"{step} {name} ".encode() + struct.pack("<d", metrics[name]))


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
