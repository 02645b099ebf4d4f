"""Maps of a measured model, as a file beside its report, and those of two models side by side."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dashboards.figures.sheets import Band, Column, Sheet
from trainers.errors import InputError, printable
from trainers.evaluation.cls_maps import MOST_HEADS, small
from trainers.globality.measurement import Maps
from trainers.runs.maps import KeptMaps, parse
from trainers.runs.maps import content_of as content_of_kept

MAPS = "maps.safetensors"
"""In the folder of a measurement."""

_TITLES = {
    "attention": "attention, last block",
    "rollout": "rollout",
    "influence": "influence",
}


def content_of(maps: Maps, grid: tuple[int, int]) -> bytes:
    """The file that holds them."""

    def placed(values: Tensor) -> npt.NDArray[np.float32]:
        return values.reshape(*values.shape[:-1], *grid).float().numpy()

    final = maps.attention[-1][:, :MOST_HEADS]
    return content_of_kept(
        KeptMaps(
            images=maps.images.numpy(),
            pixels=small(maps.pixels).numpy(),
            attention=placed(torch.stack([block.nanmean(1) for block in maps.attention])),
            heads=placed(final.transpose(0, 1)),
            rollout=placed(maps.rollout),
            influence=None if maps.influence is None else placed(maps.influence),
        )
    )


def compared_models(first: Path, second: Path) -> Sheet:
    """What two measured models look at in the same images.

    Raises InputError, one line, where a folder has no maps, or none of an image of the other.
    """
    folders = (first, second)
    maps = [_read(folder) for folder in folders]
    names = [one.images.tolist() for one in maps]
    images = [image for image in names[0] if image in names[1]]
    if not images:
        raise InputError(
            f"{printable(str(first))} and {printable(str(second))} have maps of no image in "
            "common: measure both on the same images"
        )
    columns = [
        Column(f"{mark}: {title}", "", "", _chosen(one, kind, images))
        for kind, title in _TITLES.items()
        for mark, one in zip("AB", maps, strict=True)
    ]
    pixels = maps[0].pixels
    assert pixels is not None
    return Sheet(
        f"{first} and {second}",
        "What each model looks at: attention of the last block (mean over heads), rollout, and how "
        "much replacing each patch changes its output.",
        tuple(pixels[[names[0].index(image) for image in images]]),
        [Band("", columns)],
        (f"A: {first}", f"B: {second}"),
    )


def _read(folder: Path) -> KeptMaps:
    path = folder / MAPS
    try:
        found = parse(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{printable(str(folder))} has no {MAPS}: an earlier version measured it; measure again"
        ) from None
    except (OSError, ValueError):
        found = None
    if found is None or found.pixels is None:
        raise InputError(f"{printable(str(path))} is damaged: measure again")
    return found


def _chosen(maps: KeptMaps, kind: str, images: list[int]) -> list[npt.NDArray[np.float32]]:
    """Maps of these images, as far as they are there: influence is measured of the first alone."""
    found = getattr(maps, kind)
    if found is None:
        return []
    values = found[-1] if kind == "attention" else found
    places = [maps.images.tolist().index(image) for image in images]
    return [values[place] for place in places if place < len(values)]
