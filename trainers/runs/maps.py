"""Maps of a few held-out images at one evaluation, as a file of the attempt that measured them."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

_NAME = re.compile(r"maps-(\d+)\.safetensors")
_MAPS = ("attention", "heads", "rollout", "influence")
_LEVELS = 255
"""What the largest value of a map is in the file: a byte for each patch."""


@dataclass(frozen=True, kw_only=True)
class KeptMaps:
    """What the teacher's [CLS] attends to, over patches: maps that sum to 1, NaN where none is.

    Without a [CLS] there are no layers, no heads, no rollout and no influence.
    """

    images: npt.NDArray[np.int64]
    """names, [b]: the first of those that are measured"""
    pixels: npt.NDArray[np.uint8] | None
    """evaluation crops, [b, S, S, 3], at most 96 pixels a side; at step 0 alone"""
    attention: npt.NDArray[np.float32]
    """of each block, mean over heads, [L, b, rows, columns]"""
    heads: npt.NDArray[np.float32]
    """of the final block, at most the first 16 heads, [H, b, rows, columns]"""
    rollout: npt.NDArray[np.float32] | None
    """[b, rows, columns]; at step 0 and at the last step alone"""
    influence: npt.NDArray[np.float32] | None
    """the same, of those of the images whose influence is measured"""


def name_of(step: int) -> str:
    """Of the file, in the folder of an attempt."""
    return f"maps-{step}.safetensors"


def step_of(name: str) -> int | None:
    """The step of a file of maps; None of any other."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def content_of(kept: KeptMaps) -> bytes:
    """The file that holds them, each map to 1/255 of its largest value."""
    parts: dict[str, npt.NDArray[np.generic]] = {"images": kept.images}
    if kept.pixels is not None:
        parts["pixels"] = kept.pixels
    for name in _MAPS:
        maps: npt.NDArray[np.float32] | None = getattr(kept, name)
        if maps is not None:
            largest = maps.max(axis=(-2, -1), keepdims=True)
            shares = np.nan_to_num(maps / np.where(largest > 0, largest, 1))
            parts[name] = np.rint(shares * _LEVELS).astype(np.uint8)
            parts[f"{name}_scale"] = largest[..., 0, 0].astype(np.float32)
    return safetensors.numpy.save({name: np.ascontiguousarray(one) for name, one in parts.items()})


def parse(content: bytes) -> KeptMaps:
    """What such a file holds. Raises ValueError when it is none."""
    try:
        found = safetensors.numpy.load(content)
        return KeptMaps(
            # Copies: views would keep the whole file.
            images=found["images"].copy(),
            pixels=found["pixels"].copy() if "pixels" in found else None,
            attention=_unpacked(found, "attention"),
            heads=_unpacked(found, "heads"),
            rollout=_unpacked(found, "rollout") if "rollout" in found else None,
            influence=_unpacked(found, "influence") if "influence" in found else None,
        )
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(str(error)) from error


def _unpacked(found: dict[str, npt.NDArray[np.generic]], name: str) -> npt.NDArray[np.float32]:
    scale = found[f"{name}_scale"].astype(np.float32) / np.float32(_LEVELS)
    return found[name].astype(np.float32) * scale[..., None, None]
