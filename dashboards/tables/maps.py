"""The maps that the runs of a study have kept, of one seed."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
    """[b, S, S, 3]; grey and S = 1 where none were kept"""
    arms: Mapping[str, Steps]
    """of every arm, in order; empty where it has none"""
    notes: Mapping[str, str]
    """how the run of an arm ended if not well, or why it has no maps; else empty"""


def study_maps(
    store: Store, runs: Mapping[tuple[str, int], Run], arms: Sequence[str], seeds: Sequence[int]
) -> StudyMaps | None:
    """Those of the first seed of which most arms have maps; None where no arm has any."""
    chosen = max(seeds, key=lambda seed: sum(runs[arm, seed].has_maps for arm in arms))

    def read(arm: str) -> tuple[Steps, str]:
        run = runs[arm, chosen]
        trial = StoredTrial(store, run.key)
        found: Steps = {}
        try:
            if run.has_maps and (result := trial.finished()):
                found = trial.maps(result)
        except InputError:
            return {}, "damaged"
        if run.status == "finished":
            return found, "" if found else "none kept"
        return found, _NOTES.get(run.status, run.status)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        every = dict(zip(arms, pool.map(read, arms), strict=True))
    return _of_same_images(chosen, every)


def pixels_of(kept: Collection[KeptMaps], images: list[int]) -> npt.NDArray[np.uint8]:
    """The images of those names, [b, S, S, 3], from whichever maps have them; else grey, S = 1."""
    found = (one.pixels for one in kept if one.images.tolist() == images)
    grey = np.full((len(images), 1, 1, 3), _GREY, np.uint8)
    return next((one for one in found if one is not None), grey)


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
    return StudyMaps(
        seed=seed,
        images=tuple(images),
        pixels=pixels_of(kept, images),
        arms={arm: {} if arm in others else steps for arm, (steps, _) in every.items()},
        notes={
            arm: "of other images" if arm in others else note for arm, (_, note) in every.items()
        },
    )
