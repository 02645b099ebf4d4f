"""The maps that the runs of a study have kept, of one seed."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.verdicts.evidence import Run
from trainers.errors import InputError
from trainers.runs.maps import KeptMaps
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import AT_ONCE, Store

Steps = Mapping[int, KeptMaps]
"""By step, ascending."""

_GREY = 160

_NOTES = {"missing": "not finished", "skipped": "not needed"}
"""Of runs that ended so; others are called as their status."""


@dataclass(frozen=True, kw_only=True)
class StudyMaps:
    """Maps of one seed, of the same images in every arm."""

    seed: int
    images: tuple[int, ...]
    """their names"""
    pixels: npt.NDArray[np.uint8]
    """[b, S, S, 3]; grey where no run has come to its last step"""
    arms: Mapping[str, Steps]
    """of every arm, in order; empty where it has none"""
    notes: Mapping[str, str]
    """how the run of an arm ended if not well, or why it has no maps; else empty"""


def study_maps(
    store: Store, runs: Mapping[tuple[str, int], Run], arms: Sequence[str], seeds: Sequence[int]
) -> StudyMaps | None:
    """Those of the first seed of which most arms have maps; None where no arm has any."""

    def kept(place: tuple[str, int]) -> dict[str, Any] | None:
        """The result of a run that has kept maps."""
        trial = StoredTrial(store, runs[place].key)
        try:
            result = trial.finished() if runs[place].key else None
        except InputError:
            return None
        return result if result is not None and trial.of_images(result) else None

    most, of = 0, {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for seed in seeds:
            results = dict(zip(arms, pool.map(kept, [(arm, seed) for arm in arms]), strict=True))
            found = len(arms) - list(results.values()).count(None)
            if found > most:
                most, of, chosen = found, results, seed
            if found == len(arms):
                break
        if not most:
            return None

        def read(arm: str) -> tuple[Steps, str]:
            run, result = runs[arm, chosen], of[arm]
            try:
                found = StoredTrial(store, run.key).maps(result) if result is not None else {}
            except InputError:
                return {}, "damaged"
            if run.status == "finished":
                return found, "" if found else "none kept"
            return found, _NOTES.get(run.status, run.status)

        every = dict(zip(arms, pool.map(read, arms), strict=True))
    return _of_same_images(chosen, every)


def _of_same_images(seed: int, every: Mapping[str, tuple[Steps, str]]) -> StudyMaps | None:
    """Of all arms those with maps of the images of the first of them, at every step."""
    kept = [one for steps, _ in every.values() for one in steps.values()]
    if not kept:
        return None
    images = kept[0].images.tolist()
    others = {
        arm
        for arm, (steps, _) in every.items()
        if any(one.images.tolist() != images for one in steps.values())
    }
    pixels = [one.pixels for one in kept if one.images.tolist() == images]
    grey = np.full((len(images), 1, 1, 3), _GREY, np.uint8)
    return StudyMaps(
        seed=seed,
        images=tuple(images),
        pixels=next((one for one in pixels if one is not None), grey),
        arms={arm: {} if arm in others else steps for arm, (steps, _) in every.items()},
        notes={
            arm: "of other images" if arm in others else note for arm, (_, note) in every.items()
        },
    )
