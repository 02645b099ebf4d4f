"""Where [CLS] looks in two studies: the same images, the arms of one name beside each other.

Names of studies are long, so that A and B stand for them above columns.
"""

import numpy as np

from dashboards.figures.sheets import Band, Column, Sheet
from dashboards.study.maps import FEW, attention
from dashboards.tables.maps import StudyMaps
from dashboards.tables.reading import StudyRun
from trainers.errors import InputError, printable


def compared_maps(first: StudyRun, second: StudyRun) -> Sheet:
    """Attention of the last block; columns are the arms that both have, or the first of each.

    Raises InputError, one line, where a study has no maps, or none of an image of the other.
    """
    maps = [_maps_of(study) for study in (first, second)]
    images = [one for one in maps[0].images if one in maps[1].images][:FEW]
    if not images:
        raise InputError(
            f"{printable(first.name)} and {printable(second.name)} have maps of no image in common"
        )
    both = [arm for arm in first.arms if arm in second.arms]
    pairs = [(arm, arm) for arm in both] or [(first.arms[0], second.arms[0])]
    columns = [
        _column(mark, arm, one, images)
        for pair in pairs
        for mark, arm, one in zip("AB", pair, maps, strict=True)
    ]
    # One that has kept no images has a grey pixel of each.
    shown = max(maps, key=lambda one: one.pixels.shape[1])
    return Sheet(
        f"{first.name} and {second.name}",
        "What [CLS] attends to in the last block, mean over heads.",
        tuple(shown.pixels[[shown.images.index(image) for image in images]]),
        [Band("", columns)],
        (f"A: {first.name}", f"B: {second.name}"),
    )


def _maps_of(study: StudyRun) -> StudyMaps:
    if study.maps is None:
        raise InputError(
            f"no run of {printable(study.name)} has kept maps: runs of earlier versions have none"
        )
    return study.maps


def _column(mark: str, arm: str, maps: StudyMaps, images: list[int]) -> Column:
    name, steps = f"{mark}: {arm}", maps.arms[arm]
    found = attention(steps[max(steps)]) if steps else None
    if found is None:
        return Column(name, arm, "", (), maps.notes[arm] or "no [CLS]")
    places = np.array([maps.images.index(image) for image in images])
    return Column(name, arm, f"step {max(steps)}", tuple(found[places]), maps.notes[arm])
