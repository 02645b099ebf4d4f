"""The run folder of a study -> tables, and what is missing from it.

The run folder is the truth, and this module only reads it, apart from :func:`write_results` and
:func:`write_verdicts`, which derive `results.parquet` and `verdicts.json` from it. Both are written
whole (write, fsync, rename), and their bytes depend on what the trials measured and on nothing
else: not on the clock, and not on the order in which trials finished.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from ablations.spec import Claim, Gate, Hypothesis
from ablations.verdicts.claims import judge_claims
from ablations.verdicts.judge import Run, judge
from dashboards.names import split_metric
from trainers.config import explain
from trainers.errors import InputError
from trainers.system import atomic

LOCK = "study.lock.json"
RESULTS = "results.parquet"
VERDICTS = "verdicts.json"

COLUMNS = ("study", "arm", "seed", "step", "metric", "layer", "head", "token", "value")

RESULT_STATUSES = ("finished", "collapsed", "diverged")

Declaration = TypeVar("Declaration", Hypothesis, Gate, Claim)

_SCHEMA = pa.schema(
    [
        pa.field("study", pa.string(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("layer", pa.int64()),
        pa.field("head", pa.int64()),
        pa.field("token", pa.string()),
        pa.field("value", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class StudyRun:
    """A study as its run folder shows it now; `runs` has every locked (arm, seed), run or not."""

    folder: Path
    lock: dict[str, Any]
    runs: dict[tuple[str, int], Run]
    table: pd.DataFrame

    @property
    def name(self) -> str:
        """Name of the study."""
        return str(self.lock["study"])

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of the lock."""
        return tuple(self.lock["resolved"]["arms"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """The planned seeds, in the order of the lock."""
        return tuple(self.lock["resolved"]["seeds"])

    @property
    def hypotheses(self) -> dict[str, Hypothesis]:
        """The locked hypotheses by id."""
        return _declared(self.lock, "hypotheses", Hypothesis)

    @property
    def claims(self) -> dict[str, Claim]:
        """The locked claims by id."""
        return _declared(self.lock, "claims", Claim)

    @property
    def gates(self) -> dict[str, Gate]:
        """The locked manipulation checks by id."""
        return _declared(self.lock, "gates", Gate)


@dataclass(frozen=True)
class _Trial:
    """What one trial folder holds: metrics by step, and how the trial ended, if it did."""

    metrics: Mapping[int, Mapping[str, float]]
    result: Mapping[str, Any] | None
    failure: str | None


def read_study(folder: Path) -> StudyRun:
    """The study in `folder`. Raises InputError when it is no run folder or a file is corrupt."""
    lock = read_lock(folder)
    trials = _read_trials(lock, folder)
    return StudyRun(
        folder=folder, lock=lock, runs=_runs(lock, trials), table=_long_table(lock, trials)
    )


def read_lock(folder: Path) -> dict[str, Any]:
    """The checked `study.lock.json` of `folder`. Raises InputError, one line."""
    path = folder / LOCK
    if not path.is_file():
        raise InputError(f"{folder} is not a run folder: it has no {LOCK}")
    lock = _read_object(path)
    required = {
        "study": str,
        "hypotheses_sha256": str,
        "resolved": dict,
        "arms": dict,
        "trials": list,
        "config": dict,
    }
    for name, kind in required.items():
        if not isinstance(lock.get(name), kind):
            raise InputError(f"{path} is corrupt: {name!r} is missing or not a {kind.__name__}")
    for name, kind in {"seeds": list, "arms": dict, "hypotheses": dict, "gates": dict}.items():
        if not isinstance(lock["resolved"].get(name), kind):
            raise InputError(
                f"{path} is corrupt: 'resolved.{name}' is missing or not a {kind.__name__}"
            )
    places = set()
    for trial in lock["trials"]:
        if not isinstance(trial, dict) or not {"key", "arm", "seed"} <= trial.keys():
            raise InputError(f"{path} is corrupt: a trial needs key, arm and seed, got {trial!r}")
        if Path(str(trial["key"])).name != trial["key"]:
            raise InputError(f"{path} is corrupt: not a trial key: {trial['key']!r}")
        places.add((trial["arm"], trial["seed"]))
    for arm in lock["resolved"]["arms"]:
        for seed in lock["resolved"]["seeds"]:
            if (arm, seed) not in places:
                raise InputError(f"{path} is corrupt: no trial for arm {arm!r}, seed {seed}")
    try:
        hypotheses = _declared(lock, "hypotheses", Hypothesis)
        gates = _declared(lock, "gates", Gate)
    except ValidationError as error:
        raise InputError(f"{path} is corrupt: {'; '.join(explain(error))}") from None
    named: list[tuple[str, tuple[str, ...]]] = [
        (name, tuple(hypothesis.contrast)) for name, hypothesis in hypotheses.items()
    ]
    named += [(name, gate.arms) for name, gate in gates.items()]
    for name, arms in named:
        for arm in arms:
            if arm not in lock["resolved"]["arms"]:
                raise InputError(f"{path} is corrupt: {name} names arm {arm!r}, which has no runs")
    return lock


def long_table(lock: Mapping[str, Any], folder: Path) -> pd.DataFrame:
    """Everything the trials recorded, one value a row, in the nine columns of `results.parquet`.

    `layer`, `head` and `token` are empty where a metric has none. Rows are in order of arm and seed
    (as locked), step, metric, layer and head.
    """
    return _long_table(lock, _read_trials(lock, folder))


def study_runs(lock: Mapping[str, Any], folder: Path) -> dict[tuple[str, int], Run]:
    """How each (arm, seed) ended, and what it measured at step 0 and at the last step, if there."""
    return _runs(lock, _read_trials(lock, folder))


def write_results(study: StudyRun) -> Path:
    """Writes `results.parquet` from the table of `study`: same values, same bytes."""
    columns = []
    for field in _SCHEMA:
        values = study.table[field.name].astype(object)
        present = [None if value is pd.NA else value for value in values]
        columns.append(pa.array(present, type=field.type, from_pandas=False))
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=_SCHEMA), buffer, compression="zstd")
    return atomic.replace(study.folder / RESULTS, buffer.getvalue().to_pybytes())


def judge_study(folder: Path) -> dict[str, Any]:
    """The verdicts on every locked hypothesis, as `verdicts.json` holds them."""
    return judged(read_study(folder))


def judged(study: StudyRun) -> dict[str, Any]:
    """The same for a study that was read before: JSON types, numbers that do not exist are None.

    Keys: study, hypotheses_sha256, claims ({id: {claim, verdict}}), hypotheses ({id: {hypothesis,
    verdict}}) and gates ({id: {gate, arms: {arm: {mean, seeds_without, passed}}}}).
    """
    hypotheses, gates, claims = study.hypotheses, study.gates, study.claims
    verdicts = judge(hypotheses, gates, study.runs, study.seeds)
    of_claims = judge_claims(claims, hypotheses, {name: v.label for name, v in verdicts.items()})
    content = {
        "study": study.name,
        "hypotheses_sha256": study.lock["hypotheses_sha256"],
        "claims": {
            name: {"claim": claim.model_dump(mode="json"), "verdict": of_claims[name].to_json()}
            for name, claim in claims.items()
        },
        "hypotheses": {
            name: {
                "hypothesis": hypothesis.model_dump(mode="json"),
                "verdict": verdicts[name].to_json(),
            }
            for name, hypothesis in hypotheses.items()
        },
        "gates": {
            name: {
                "gate": gate.model_dump(mode="json"),
                "arms": {arm: _measured(study, gate, arm) for arm in gate.arms},
            }
            for name, gate in gates.items()
        },
    }
    plain: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    return plain


def value_at_end(run: Run, metric: str, *, minus_start: bool = False) -> float | None:
    """`metric` at the run's last step, or its change since step 0; None if it has no number."""
    value = run.end.get(metric, math.nan)
    if minus_start:
        value -= run.start.get(metric, math.nan)
    return value if math.isfinite(value) else None


def write_verdicts(folder: Path) -> Path:
    """Judges the study in `folder` and writes `verdicts.json`."""
    return atomic.replace_json(folder / VERDICTS, judge_study(folder))


def _measured(study: StudyRun, gate: Gate, arm: str) -> dict[str, Any]:
    """Mean over seeds of what a gate asks of `arm`, seeds that lack it, and whether it passed."""
    values = {
        seed: value_at_end(study.runs[arm, seed], gate.metric, minus_start=gate.minus_start)
        for seed in study.seeds
    }
    numbers = [value for value in values.values() if value is not None]
    mean = math.fsum(numbers) / len(numbers) if numbers else None
    without = [seed for seed, value in values.items() if value is None]
    return {
        "mean": mean,
        "seeds_without": without,
        "passed": mean is not None and not without and mean >= gate.at_least,
    }


def _declared(
    lock: Mapping[str, Any], group: str, kind: type[Declaration]
) -> dict[str, Declaration]:
    """The locked hypotheses or gates, as checked models."""
    declared = lock["resolved"].get(group, {}).items()
    return {name: kind.model_validate_json(json.dumps(value)) for name, value in declared}


def _places(lock: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Every planned (arm, seed, trial key), in order of arms and seeds as locked."""
    keys = {(trial["arm"], trial["seed"]): trial["key"] for trial in lock["trials"]}
    for arm in lock["resolved"]["arms"]:
        for seed in lock["resolved"]["seeds"]:
            yield arm, seed, keys[arm, seed]


def _read_trials(lock: Mapping[str, Any], folder: Path) -> dict[str, _Trial]:
    """The trials by key; arms that are identical share one."""
    keys = dict.fromkeys(key for _, _, key in _places(lock))
    return {key: _read_trial(folder / "trials" / key) for key in keys}


def _read_trial(folder: Path) -> _Trial:
    result_path, failure_path = folder / "result.json", folder / "failure.json"
    result = _read_object(result_path) if result_path.is_file() else None
    if result is not None and (
        result.get("status") not in RESULT_STATUSES
        or not isinstance(result.get("step"), int)
        or not isinstance(result.get("steps"), int)
    ):
        raise InputError(
            f"{result_path} is corrupt: status must be one of {', '.join(RESULT_STATUSES)}, "
            "and step and steps whole numbers"
        )
    failure = _read_object(failure_path) if failure_path.is_file() else None
    return _Trial(
        metrics=_read_metrics(folder / "metrics.jsonl"),
        result=result,
        failure=None if failure is None else str(failure.get("message", "no message")),
    )


def _read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """Metrics by step, ascending. A step that was recorded again after a restart counts once.

    A last line without its end is a record still being written, and is left out.
    """
    if not path.is_file():
        return {}
    steps: dict[int, dict[str, float]] = {}
    *lines, _unfinished = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            values = {
                str(name): math.nan if value is None else float(value)
                for name, value in record["metrics"].items()
            }
            steps.setdefault(int(record["step"]), {}).update(values)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{path} is corrupt: line {number} is not a metrics record") from None
    return dict(sorted(steps.items()))


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises InputError when it holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is corrupt: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is corrupt: not a JSON object")
    return content


def _runs(lock: Mapping[str, Any], trials: Mapping[str, _Trial]) -> dict[tuple[str, int], Run]:
    return {(arm, seed): _run(trials[key]) for arm, seed, key in _places(lock)}


def _run(trial: _Trial) -> Run:
    """How a trial ended; one without a result is failed (it left a message) or missing."""
    start = trial.metrics.get(0, {})
    if trial.result is not None:
        step = trial.result["step"]
        reached_end = step == trial.result["steps"]
        return Run(
            status=trial.result["status"],
            reason=str(trial.result.get("reason", "")),
            start=start,
            end=trial.metrics.get(step, {}) if reached_end else {},
        )
    if trial.failure is not None:
        return Run(status="failed", reason=trial.failure, start=start, end={})
    last = max(trial.metrics, default=None)
    reason = "not started" if last is None else f"not finished, last record at step {last}"
    return Run(status="missing", reason=reason, start=start, end={})


def _long_table(lock: Mapping[str, Any], trials: Mapping[str, _Trial]) -> pd.DataFrame:
    split = {
        key: split_metric(key)
        for trial in trials.values()
        for metrics in trial.metrics.values()
        for key in metrics
    }
    order = sorted(split, key=lambda key: [(part is not None, part) for part in split[key][:3]])
    rank = {key: number for number, key in enumerate(order)}
    study = lock["study"]
    rows = [
        (study, arm, seed, step, *split[key], metrics[key])
        for arm, seed, trial_key in _places(lock)
        for step, metrics in trials[trial_key].metrics.items()
        for key in sorted(metrics, key=rank.__getitem__)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype(
        {
            "study": "string",
            "arm": "string",
            "seed": "int64",
            "step": "int64",
            "metric": "string",
            "layer": "Int64",
            "head": "Int64",
            "token": "string",
            "value": "float64",
        }
    )
