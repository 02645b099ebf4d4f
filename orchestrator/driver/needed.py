"""The trials that a sequential design still needs, as their results come into the run root."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ablations.verdicts.evidence import Run
from dashboards.tables.chain import read_entry
from dashboards.tables.reading import read_run
from orchestrator import schedule
from orchestrator.plan import Plan, Trial
from orchestrator.schedule import Sequential, Standing
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import AT_ONCE, Store

_FAILED = Run(status="failed", start={}, end={})


class Needed:
    """Which of the `missing` trials of a plan, which is registered, are needed.

    All that it knows is in the run root.
    """

    def __init__(self, plan: Plan, missing: Sequence[Trial], store: Store) -> None:
        study = plan.study
        assert study.design is not None
        self._plan, self._missing, self._store = plan, missing, store
        self._sequential = Sequential(
            design=study.design,
            hypotheses=study.hypotheses,
            gates=study.gates,
            multiplicity=study.multiplicity,
            references=read_entry(store, study.name).dataset.get("references", {}),
            seeds=study.seeds,
            costs={
                arm: plan.operations([trial])
                for trial in plan.trials
                if trial.seed == study.seeds[0]
                for arm in trial.arms
            },
        )
        self._open = {trial.key for trial in missing}
        self._finished: dict[str, Run] = {}
        self._failed: set[str] = set()
        self._needed: tuple[Trial, ...] | None = None
        self._labels: tuple[str, ...] = ("open",) * len(study.hypotheses)

    def __call__(self, standings: Mapping[str, Standing]) -> tuple[Trial, ...]:
        """Those trials in the order in which to start, finished ones among them. Raises StoreError.

        `standings` has the key of each that is not open.
        """
        new = [
            trial
            for trial in self._plan.trials
            if trial.key not in self._finished
            and (trial.key not in self._open or standings.get(trial.key) == "finished")
        ]
        failed = {key for key, standing in standings.items() if standing == "failed"}
        if self._needed is None or new or failed != self._failed:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                stored = [StoredTrial(self._store, trial.key) for trial in new]
                read = list(pool.map(read_run, stored))
            self._finished |= {trial.key: run for trial, run in zip(new, read, strict=True)}
            self._failed = failed
            found = self._finished | dict.fromkeys(failed, _FAILED)
            runs = {
                (arm, trial.seed): found[trial.key]
                for trial in self._plan.trials
                if trial.key in found
                for arm in trial.arms
            }
            followed = schedule.looked(self._sequential, runs)
            self._needed = schedule.needed(self._missing, self._sequential, runs, followed)
            self._labels = tuple(
                one.verdict.label if one.is_decided else "open" for one in followed.values()
            )
        return self._needed

    def labels(self) -> tuple[str, ...]:
        """Of each hypothesis the label that a look has decided, else `open`; as last called."""
        return self._labels
