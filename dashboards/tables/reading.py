"""The study as its run root shows it now: what was stated, how each run ended, what it measured."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ablations.design import Design
from ablations.registration import Entry, study_folder
from ablations.spec import Claim, Gate, Hypothesis
from ablations.verdicts.evidence import Run
from ablations.verdicts.images import measured_by_image
from dashboards.tables.chain import read_chain
from dashboards.tables.long import LONG, placed
from dashboards.tables.maps import StudyMaps, study_maps
from dashboards.tables.trials import each_place
from dashboards.tables.values import SCHEMA, Steps, values_of
from trainers.errors import InputError
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import Store

CURVES = ("knn/cls_top1", "loss/total")
"""Metrics that figures show over steps, beside those of the collapse panel."""

COLLAPSE = "collapse/"

GLOBALITY = ("globality/cls/gyration", "globality/patch/gyration")
"""Metrics that figures show by layer, at step 0 and at the end."""


@dataclass(frozen=True)
class StudyRun:
    """A study as its run root shows it now; `runs` has every stated (arm, seed), run or not."""

    store: Store
    chain: tuple[Entry, ...]
    """its registrations, the newest last"""
    runs: dict[tuple[str, int], Run]
    table: pa.Table
    """what figures show, in columns and order of `results.parquet`"""

    @property
    def entry(self) -> Entry:
        """Its newest registration, which says what is planned."""
        return self.chain[-1]

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.entry.study

    @property
    def folder(self) -> str:
        """Its folder, as a prefix of keys in the store."""
        return study_folder(self.name)

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of its registration."""
        return tuple(self.entry.resolved.arms)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The planned seeds, in the order of its registration."""
        return self.entry.resolved.seeds

    @property
    def hypotheses(self) -> dict[str, Hypothesis]:
        """The stated hypotheses by id."""
        return self.entry.resolved.hypotheses

    @property
    def claims(self) -> dict[str, Claim]:
        """The stated claims by id."""
        return self.entry.resolved.claims

    @property
    def gates(self) -> dict[str, Gate]:
        """The stated manipulation checks by id."""
        return self.entry.resolved.gates

    @property
    def design(self) -> Design | None:
        """The stated sequential design, if there is one."""
        return self.entry.resolved.design

    @cached_property
    def maps(self) -> StudyMaps | None:
        """The maps that its runs have kept, of one seed; read when they are asked for."""
        return study_maps(self.store, self.runs, self.arms, self.seeds)


def read_study(store: Store, name: str) -> StudyRun:
    """The study of that name; a run whose files are damaged is failed, and says which file.

    Raises InputError when there is no such study or a registration is damaged.
    """
    chain = read_chain(store, name)
    entry = chain[-1]
    steps, hypotheses = Steps(), entry.resolved.hypotheses
    metrics, at_start = (measured_by_image(hypotheses, at_start=one) for one in (False, True))
    runs, tables = {}, [LONG.empty_table()]

    def read(trial: StoredTrial) -> tuple[Run, pa.Table]:
        return _read(trial, steps, metrics, at_start)

    for arm, seed, (run, values) in each_place(entry, store, read):
        runs[arm, seed] = run
        tables.append(placed(values, entry.study, arm, seed))
    table = pa.concat_tables(tables).combine_chunks()
    runs = _told_apart(entry, runs)
    return StudyRun(store=store, chain=tuple(chain), runs=runs, table=table)


def study_runs(entry: Entry, store: Store) -> dict[tuple[str, int], Run]:
    """How each (arm, seed) ended, and what it measured at step 0 and at the last step, if there."""
    steps = Steps()
    read = each_place(entry, store, lambda trial: _read(trial, steps)[0])
    return _told_apart(entry, {(arm, seed): run for arm, seed, run in read})


def _told_apart(entry: Entry, runs: dict[tuple[str, int], Run]) -> dict[tuple[str, int], Run]:
    """`runs`, where a sequential design tells those that it did not need from missing ones."""
    study = entry.resolved
    if study.design is None:
        return runs
    from ablations.verdicts.looks import told_apart  # statistics take a second to load

    return told_apart(
        study.hypotheses,
        study.gates,
        runs,
        tuple(study.arms),
        study.seeds,
        study.design,
        multiplicity=study.multiplicity,
        references=entry.dataset.get("references", {}),
    )


def read_run(trial: StoredTrial) -> Run:
    """How a trial ended, and what it measured at step 0 and at the last step, if there."""
    return _read(trial, Steps())[0]


def _read(
    trial: StoredTrial,
    steps: Steps,
    by_image: Collection[str] = (),
    by_image_at_start: Collection[str] = (),
) -> tuple[Run, pa.Table]:
    """How a trial ended, and what figures show of its values; some metrics also by image."""
    kept = kept_at_start = None
    try:
        result = trial.finished()
        values = values_of(trial, result)
        if result is not None and by_image:
            kept = trial.by_image(result, by_image)
        if result is not None and by_image_at_start:
            kept_at_start = trial.by_image(result, by_image_at_start, at_start=True)
        failure = None if result else trial.failed()
    except InputError as error:
        return Run(status="failed", reason=str(error), start={}, end={}), SCHEMA.empty_table()
    shown = _shown(values)
    start = steps.at(values, 0)
    if result is not None:
        reached_end = result["step"] == result["steps"]
        run = Run(
            status=result["status"],
            reason=str(result.get("reason", "")),
            start=start,
            end=steps.at(values, result["step"]) if reached_end else {},
            machine=_machine(result),
            key=trial.key,
            wall_s=result.get("wall_s"),
            by_image=kept if reached_end else None,
            by_image_at_start=kept_at_start,
            has_maps=trial.has_maps(result),
        )
    elif failure is not None:
        run = Run(status="failed", reason=failure.message, start=start, end={})
    else:
        last = pc.max(values["step"]).as_py()
        reason = "not started" if last is None else f"not finished, last record at step {last}"
        run = Run(status="missing", reason=reason, start=start, end={})
    return run, shown


def _shown(values: pa.Table) -> pa.Table:
    metric, step = values["metric"], values["step"]
    over_steps = pc.or_(
        pc.is_in(metric, pa.array(CURVES)), pc.starts_with(metric, pattern=COLLAPSE)
    )
    ends = pc.is_in(step, pa.array([0, pc.max(step).as_py()], pa.int64()))
    by_layer = pc.and_(pc.is_in(metric, pa.array(GLOBALITY)), ends)
    whole = pc.is_null(values["layer"])
    return values.filter(pc.or_(pc.and_(whole, over_steps), pc.and_(pc.invert(whole), by_layer)))


def _machine(result: Mapping[str, Any]) -> str:
    """On what a result was made, in words; empty for one of before that was recorded."""
    if "torch" not in result:
        return ""
    last = _machine_text(result)
    earlier = [_machine_text(one) for one in result.get("earlier_machines", ())]
    return f"{last} after {' and '.join(earlier)}" if earlier else last


def _machine_text(one: Mapping[str, Any]) -> str:
    versions = [("PyTorch", "torch"), ("CUDA", "cuda"), ("cuDNN", "cudnn")]
    parts = [f"{title} {one[name]}" for title, name in versions if one.get(name) is not None]
    workers = one.get("workers") or 1
    parts += [f"{workers} workers"] if workers > 1 else []
    return f"{one.get('device')} ({', '.join([str(one.get('device_name')), *parts])})"
