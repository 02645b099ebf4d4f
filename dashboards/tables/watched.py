"""A study while it runs: how far it is, and what may be seen of it before all of it is there.

Whoever sees an effect early stops early. So a fixed design shows no end point while a run is
missing, of no run and no arm; a sequential one shows what its looks have shown, and no more.
"""

import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ablations.registration import Entry, study_folder
from ablations.verdicts.evidence import Run
from dashboards.tables.board import Progress, progress_of_all, skipped
from dashboards.tables.chain import read_entry
from dashboards.tables.reading import read_study, study_runs
from trainers.errors import InputError
from trainers.runs.records import parse
from trainers.runs.stored_trial import RESULT_STATUSES, StoredTrial
from trainers.system.store import AT_ONCE, Store

LOSS = "loss/total"

MEASURES = ("gyration", "entropy", "coverage", "content_dependence", "positional_bias")
"""Of globality; the first that is no end point is shown of runs at work."""

ENDED = (*RESULT_STATUSES, "skipped")
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
    """that decides, valid over all looks"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A study at one moment."""

    entry: Entry
    progress: dict[tuple[str, int], Progress]
    loss: str
    """metric of the running loss; empty where it is an end point"""
    globality: str
    """metric of globality; empty where every one is an end point"""
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
        runs, told = self._judge(entry, progress)
        if runs:
            progress = skipped(progress, runs)
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
            complete=self._is_complete(progress),
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

    def _is_complete(self, progress: Mapping[tuple[str, int], Progress]) -> bool:
        """Whether all have ended; a failed run has once a driver has judged without it."""
        states = {one.state for one in progress.values()}
        if states <= {*ENDED}:
            return True
        if not states <= {*ENDED, "failed"}:
            return False
        folder = study_folder(self.name)
        judged = [e.changed for e in self.store.list(folder) if e.key == f"{folder}/{VERDICTS}"]
        quiet_s = min(one.heard_s for one in progress.values() if one.state == "failed")
        return bool(judged) and judged[0] > time.time() - quiet_s

    def _judge(
        self, entry: Entry, progress: Mapping[tuple[str, int], Progress]
    ) -> tuple[Mapping[tuple[str, int], Run], tuple[Told, ...]]:
        """The runs, of a sequential design, and what may be told of hypotheses.

        They are judged again only when another run has ended.
        """
        ended = {
            place: one.state
            for place, one in progress.items()
            if one.state in (*RESULT_STATUSES, "failed", "damaged")
        }
        if self._judged[0] != (entry.digest, ended):
            runs: Mapping[tuple[str, int], Run] = {}
            told: tuple[Told, ...] = ()
            if entry.resolved.design is not None:
                runs = study_runs(entry, self.store)
                told = _at_looks(entry, runs)
            elif all(one.state in RESULT_STATUSES for one in progress.values()):
                told = _at_the_end(self.name, self.store)
            self._judged = (entry.digest, ended), runs, told
        return self._judged[1:]


def shown_metrics(entry: Entry) -> tuple[str, str]:
    """The loss and the metric of globality that are shown of runs at work.

    Neither says anything of an end point: of a measure that one is about, no token is shown.
    """
    hypotheses = entry.resolved.hypotheses.values()
    ends = {name for one in hypotheses for name in (one.metric, one.metric_against)}
    taken = {part for name in ends if name.startswith("globality/") for part in name.split("/")}
    loss = "" if any(name.startswith("loss/") for name in ends) else LOSS
    token = "cls" if entry.config.get("model", {}).get("cls", True) else "patch"
    free = [f"globality/{token}/{one}" for one in MEASURES if one not in taken]
    return loss, next(iter(free), "")


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
            if last.interval is not None:
                text += f" [{last.interval[0]:+.4g}, {last.interval[1]:+.4g}]"
        told.append(
            Told(
                name=name,
                label=one.verdict.label if one.is_decided else "",
                text=text,
                seeds=looks[-1].seeds if looks else 0,
                mean=looks[-1].mean if looks else None,
                interval=looks[-1].interval if looks else None,
            )
        )
    return tuple(told)


def _at_the_end(name: str, store: Store) -> tuple[Told, ...]:
    """The verdicts of a study of which no run is missing."""
    from dashboards.tables.derived import interval_shown, judged

    told = []
    for hypothesis, entry in judged(read_study(store, name))["hypotheses"].items():
        verdict = entry["verdict"]
        ends, level = interval_shown(entry)
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
                interval=None if ends is None else (ends[0], ends[1]),
            )
        )
    return tuple(told)
