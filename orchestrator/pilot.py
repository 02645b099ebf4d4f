"""A pilot: the arms of a study at seeds of its own, to see how far differences vary.

It is a study by itself in the run root, of no hypotheses: its runs never count in a verdict.
"""

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ablations.registration import Entry, knobs_of
from ablations.spec import BASELINE
from ablations.study.study import Study
from ablations.verdicts.evidence import Run
from dashboards.tables.chain import find_chain
from dashboards.tables.reading import study_runs
from dashboards.tables.trials import each_place
from trainers.data.image_set import ImageSet
from trainers.errors import StudyError
from trainers.system.store import Store

FIRST_SEED = 1_000_000
"""Seeds of pilots begin here, far from those that studies have."""


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """What of a pilot says something about a study as it is declared now."""

    name: str
    seeds: tuple[int, ...]
    runs: Mapping[tuple[str, int], Run]
    """by arm and seed, of arms that are declared now as they were then"""
    otherwise: tuple[str, ...]
    """its arms that are declared otherwise now, or not at all; they are not used"""
    seconds: Mapping[str, float]
    """of each arm with finished runs, the mean time of one"""

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms that are used."""
        return tuple(dict.fromkeys(arm for arm, _ in self.runs))


def pilot_name(study: Study) -> str:
    """The name of a study's pilot."""
    return f"{study.name}-pilot"


def pilot_of(study: Study, count: int, only: Sequence[str] | None, earlier: Pilot | None) -> Study:
    """The pilot of a study, at `count` seeds that it has not.

    It has all arms, or the baseline and those of `only`. Seeds and arms of an `earlier` one stay.
    """
    before = () if earlier is None else earlier.seeds
    taken = {*study.seeds, *before}
    new = (seed for seed in itertools.count(FIRST_SEED) if seed not in taken)
    seeds = (*before, *itertools.islice(new, max(0, count - len(before))))
    kept = {BASELINE, *(only or study.arms), *(earlier.arms if earlier else ())}
    return replace(
        study,
        name=pilot_name(study),
        arms={arm: change for arm, change in study.arms.items() if arm in kept},
        seeds=seeds,
        hypotheses={},
        claims={},
        gates={},
        design=None,
    )


def read_pilot(study: Study, images: ImageSet, store: Store) -> Pilot | None:
    """The pilot of a study in `store`, or None without one. Raises InputError, one line."""
    chain = find_chain(store, pilot_name(study))
    if not chain:
        return None
    entry = chain[-1]
    declared = json.loads(json.dumps(study.to_json()["arms"]))
    base = knobs_of(study.base.model_dump(mode="json"))
    alike = entry.knobs == base and entry.dataset.get("digest") == images.digest
    arms = entry.resolved.arms
    used = [arm for arm, change in arms.items() if alike and declared.get(arm) == change]
    runs = study_runs(entry, store)
    return Pilot(
        name=entry.study,
        seeds=entry.resolved.seeds,
        runs={place: run for place, run in runs.items() if place[0] in used},
        otherwise=tuple(arm for arm in arms if arm not in used),
        seconds=_seconds(entry, store, used),
    )


def refuse_pilot_seeds(study: Study, store: Store) -> None:
    """Raises StudyError, one line, when a study has seeds of its own pilot: they would count."""
    chain = find_chain(store, pilot_name(study))
    piloted = {seed for entry in chain for seed in entry.resolved.seeds}
    if both := sorted(piloted & {*study.seeds}):
        raise StudyError(
            f"seeds: {', '.join(map(str, both))} were those of the pilot {pilot_name(study)}, "
            "whose runs must not count; give the study others"
        )


def _seconds(entry: Entry, store: Store, arms: Sequence[str]) -> dict[str, float]:
    times: dict[str, list[float]] = {}
    for arm, _, result in each_place(entry, store, lambda trial: trial.finished()):
        if arm in arms and result is not None and "wall_s" in result:
            times.setdefault(arm, []).append(result["wall_s"])
    return {arm: statistics.fmean(of_arm) for arm, of_arm in times.items()}
