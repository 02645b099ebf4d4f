"""What a run measured of each held-out image at an end of it, as a file beside its records."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

BY_IMAGE = "by_image.safetensors"
"""Of the last step, in the folder of the attempt that has the result."""

AT_START = "by_image-0.safetensors"
"""Of step 0, in the folder of the attempt that began there."""

_NAMES = "images"


@dataclass(frozen=True, kw_only=True)
class ByImage:
    """Metrics that are means over images, of each image."""

    images: npt.NDArray[np.int64]
    """their names, [n], in the order in which they are measured"""
    values: Mapping[str, npt.NDArray[np.float32]]
    """by name of a metric, of the first m <= n of them, [m]"""


def content_of(by_image: ByImage) -> bytes:
    """The file that holds it."""
    return safetensors.numpy.save({**by_image.values, _NAMES: by_image.images})


def parse(content: bytes, metrics: Collection[str]) -> ByImage:
    """What such a file holds of `metrics`. Raises ValueError when it is none."""
    try:
        found = safetensors.numpy.load(content)
        images = found[_NAMES]
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(str(error)) from error
    # Copies: views would keep the whole file.
    values = {name: found[name].copy() for name in metrics if name in found}
    return ByImage(images=images.copy(), values=values)
