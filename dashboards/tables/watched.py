"""A study while it runs: how far it is, and what may be seen of it before all of it is there.

Whoever sees an effect early stops early. So a fixed design shows no end point while a run is
missing, of no run and no arm; a sequential one shows what its looks have shown, and no more.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ablations.registration import REGISTRATIONS, Entry, study_folder
from ablations.verdicts.evidence import Run
from dashboards.tables.board import Progress, progress_of_all, skipped
from dashboards.tables.chain import read_entry
from dashboards.tables.reading import read_study, study_runs
from trainers.errors import InputError
from trainers.runs.records import parse
from trainers.runs.stored_trial import RESULT_STATUSES, TRIALS, StoredTrial
from trainers.system.store import AT_ONCE, Store

LOSS = "loss/total"

MEASURE = "entropy"
"""Of globality, which is shown of runs at work where that is allowed."""

# What trainers.metrics says too, which takes seconds to load.
_OF_THE_MACHINE = ("time", "memory")

_OF_ATTENTION = (
    "globality", "student", "norm_weighted", "rollout", "reach", "influence", "shuffled",
    "mirrored",
)  # fmt: skip

ENDED = (*RESULT_STATUSES, "skipped", "ended")
"""States of a run to which nothing more will come."""

VERDICTS = "verdicts.json"


@dataclass(frozen=True, kw_only=True)
class Told:
    """A hypothesis, as far as it may be told."""

    name: str
    label: str
    """empty while it is not decided"""
    text: str
    """what the newest look has shown, or why there is nothing to say"""
    seeds: int = 0
    """that it rests on; 0 where nothing has been shown"""
    mean: float | None = None
    """of the paired differences, in the metric's units"""
    interval: tuple[float, float] | None = None
    """that decides, valid over all looks; None where it has no end"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A study at one moment."""

    entry: Entry
    progress: dict[tuple[str, int], Progress]
    loss: str
    """metric of the running loss; empty where it would say something of an end point"""
    globality: str
    """metric of globality; empty where it would say something of an end point"""
    latest: dict[str, dict[str, float]]
    """the newest values of these two, by trial key and metric, of runs at work"""
    told: tuple[Told, ...]
    """what may be told of hypotheses; empty while that is nothing"""
    complete: bool
    """whether nothing more will come: all runs have ended, or a driver has left the failed ones"""

    @property
    def seconds_left(self) -> float | None:
        """Until all runs have ended, at the pace of now; None where no run is at work."""
        runs = {one.key: one for one in self.progress.values()}.values()
        pace = sum(one.rate for one in runs if one.state == "running")
        known = [one.steps for one in runs if one.steps]
        if not pace or not known:
            return None
        usual = sum(known) / len(known)
        left = [(one.steps or usual) - one.step for one in runs if one.state not in ENDED]
        return sum(left) / pace


class Watched:
    """A study of a run root, to be looked at again and again; what does not change is read once."""

    def __init__(self, store: Store, name: str) -> None:
        """Raises InputError, one line, when there is no such study."""
        self.store, self.name = store, name
        self._ended: dict[str, Progress] = {}
        self._judged: tuple[object, Mapping[tuple[str, int], Run], tuple[Told, ...]] = None, {}, ()
        self._segments: dict[str, dict[str, float]] = {}
        read_entry(store, name)

    def look(self) -> Seen:
        """The study as it is now. Raises InputError for a damaged registration, and StoreError."""
        entry = read_entry(self.store, self.name)
        progress = progress_of_all(entry, self.store, self._ended)
        self._ended = {one.key: one for one in progress.values() if one.state in RESULT_STATUSES}
        complete = self._is_complete(entry, progress)
        runs, told = self._judge(entry, progress, complete)
        if runs:
            progress = skipped(progress, runs)
            complete = complete or self._is_complete(entry, progress)
        if not complete:
            progress = _untold(entry, progress, told)
        loss, globality = shown_metrics(entry)
        asked = [metric for metric in (loss, globality) if metric]
        running = {one.key for one in progress.values() if one.state == "running"}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            keys = sorted(running)
            values = pool.map(lambda key: self._latest(key, asked), keys)
            latest = dict(zip(keys, values, strict=True))
        return Seen(
            entry=entry,
            progress=progress,
            loss=loss,
            globality=globality,
            latest=latest,
            told=told,
            complete=complete,
        )

    def _latest(self, key: str, asked: list[str]) -> dict[str, float]:
        """The newest value of each metric that a run has recorded; the last segment alone grows."""
        trial = StoredTrial(self.store, key)
        found: dict[str, float] = {}
        segments = trial.newest_segments()[1]
        for segment in reversed(segments):
            values = self._segments.get(segment)
            if values is None:
                try:
                    records = parse(self.store.get(segment) or b"", segment)
                except InputError:
                    continue  # the run itself says so when it ends
                values = {m: v for _, metrics in records for m, v in metrics.items() if m in asked}
                if segment != segments[-1]:
                    self._segments[segment] = values
            found = {**values, **found}
            if all(metric in found for metric in asked):
                break
        return {metric: value for metric, value in found.items() if math.isfinite(value)}

    def _is_complete(self, entry: Entry, progress: Mapping[tuple[str, int], Progress]) -> bool:
        """Whether all have ended; a failed run has once a driver has judged after all news.

        What a sequential design then still waits for behind a failed run is not coming.
        """
        states = {one.state for one in progress.values()}
        if states <= {*ENDED}:
            return True
        waits = {"waiting"} if entry.resolved.design is not None else set()
        if "failed" not in states or not states <= {*ENDED, "failed", *waits}:
            return False
        folder = study_folder(self.name)
        changed = {one.key: one.changed for one in self.store.list(folder)}
        judged = changed.get(f"{folder}/{VERDICTS}")
        if judged is None:
            return False
        stated = [at for key, at in changed.items() if f"/{REGISTRATIONS}/" in key]
        begun = {one.key for one in progress.values() if one.state != "waiting"}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            listed = pool.map(lambda key: self.store.list(f"{TRIALS}/{key}"), sorted(begun))
            # Not of tables, which whoever reads a study keeps beside them.
            news = [
                one.changed
                for of_trial in listed
                for one in of_trial
                if one.key.endswith(("/lease.json", "/result.json"))
            ]
        return judged > max(stated + news)

    def _judge(
        self, entry: Entry, progress: Mapping[tuple[str, int], Progress], complete: bool
    ) -> tuple[Mapping[tuple[str, int], Run], tuple[Told, ...]]:
        """The runs, of a sequential design, and what may be told of hypotheses.

        They are judged again only when another run has ended.
        """
        ended = {
            place: one.state
            for place, one in progress.items()
            if one.state in (*RESULT_STATUSES, "failed", "damaged")
        }
        if self._judged[0] != (entry.digest, ended, complete):
            runs: Mapping[tuple[str, int], Run] = {}
            told: tuple[Told, ...] = ()
            if entry.resolved.design is not None:
                runs = study_runs(entry, self.store)
                told = _at_looks(entry, runs)
            elif complete:
                told = _at_the_end(self.name, self.store)
            self._judged = (entry.digest, ended, complete), runs, told
        return self._judged[1:]


def shown_metrics(entry: Entry) -> tuple[str, str]:
    """The loss and the metric of globality that are shown of runs at work; empty: it is not.

    Measures of a model move together. So globality is shown only where every end point and every
    gate is a time or a memory, and the loss only where each is that or a measure of attention.
    Step, speed and time left are always shown.
    """
    study = entry.resolved
    ends = {
        name
        for one in study.hypotheses.values()
        for name in (one.end_point, one.metric_against)
        if name
    } | {one.metric for one in study.gates.values()}
    kinds = {name.partition("/")[0] for name in ends} - {*_OF_THE_MACHINE}
    token = "cls" if entry.config.get("model", {}).get("cls", True) else "patch"
    return (
        LOSS if kinds <= {*_OF_ATTENTION} else "",
        "" if kinds else f"globality/{token}/{MEASURE}",
    )


def _untold(
    entry: Entry, progress: Mapping[tuple[str, int], Progress], told: tuple[Told, ...]
) -> dict[tuple[str, int], Progress]:
    """`progress`, where runs are only `ended` if how they did is an end point of a hypothesis.

    A sequential design tells it of the seeds of looks that are complete.
    """
    seeds = entry.resolved.seeds
    ends = {name for name, one in entry.resolved.hypotheses.items() if one.endpoint}
    looked = [one.seeds for one in told if one.name in ends]
    known = seeds[: min(looked, default=0)] if ends else seeds
    return {
        (arm, seed): replace(one, state="ended", reason="")
        if one.state in RESULT_STATUSES and seed not in known
        else one
        for (arm, seed), one in progress.items()
    }


def _at_looks(entry: Entry, runs: Mapping[tuple[str, int], Run]) -> tuple[Told, ...]:
    """What the looks of a sequential design have shown, which is valid over all of them."""
    from ablations.verdicts.looks import follow  # statistics take a second to load

    study = entry.resolved
    assert study.design is not None
    followed = follow(
        study.hypotheses,
        study.gates,
        runs,
        study.seeds,
        study.design,
        multiplicity=study.multiplicity,
        references=entry.dataset.get("references", {}),
        advise=False,
    )
    told = []
    for name, one in followed.items():
        looks = one.verdict.looks
        text = f"no look yet: the first is at {study.design.looks[0]} seeds"
        if looks:
            last = looks[-1]
            text = f"look {len(looks)} of {len(study.design.looks)}, {last.seeds} seeds"
            if last.mean is not None:
                text += f", {last.mean:+.4g}"
            if ends := _finite(last.interval):
                text += f" [{ends[0]:+.4g}, {ends[1]:+.4g}]"
        told.append(
            Told(
                name=name,
                label=one.verdict.label if one.is_decided else "",
                text=text,
                seeds=looks[-1].seeds if looks else 0,
                mean=looks[-1].mean if looks else None,
                interval=_finite(looks[-1].interval) if looks else None,
            )
        )
    return tuple(told)


def _at_the_end(name: str, store: Store) -> tuple[Told, ...]:
    """The verdicts of a study of which nothing more will come."""
    from dashboards.tables.derived import interval_shown, judged

    told = []
    for hypothesis, entry in judged(read_study(store, name))["hypotheses"].items():
        verdict = entry["verdict"]
        shown, level = interval_shown(entry)
        ends = _finite(shown)
        text = f"{verdict['n']} seeds"
        if verdict["mean"] is not None:
            text += f", {verdict['mean']:+.4g}"
        if ends is not None:
            text += f", {100 * level:.4g} % [{ends[0]:+.4g}, {ends[1]:+.4g}]"
        told.append(
            Told(
                name=hypothesis,
                label=verdict["label"],
                text=text,
                seeds=verdict["n"],
                mean=verdict["mean"],
                interval=ends,
            )
        )
    return tuple(told)


def _finite(interval: Sequence[float] | None) -> tuple[float, float] | None:
    """Both ends; None where one is infinite: it says nothing, and JSON has no such number."""
    if interval is None or not all(map(math.isfinite, interval)):
        return None
    return interval[0], interval[1]
