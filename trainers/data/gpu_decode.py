"""JPEGs decoded in batches on a CUDA device (nvJPEG).

Not yet run on such a device: tests run it with the decoder of the CPU. torchvision 0.29 announces
that its decoder will move to TorchCodec; `decode_jpeg` is the only name that has to change here.
"""

import io
import warnings
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_jpeg

from trainers.data.decode import FORMATS

warnings.filterwarnings(
    "ignore", "The image decoding and encoding capabilities", DeprecationWarning
)
_ORIENTATION = 0x0112


def decode_squares_on(
    device: torch.device,
    places: list[int],
    read: Callable[[int], Any],
    squares: Callable[[list[int]], Tensor],
    side: int,
) -> Tensor:
    """Images squeezed to squares, uint8 [b, 3, side, side] on `device`.

    `read` gives the bytes at a place. Plain JPEGs (grey or colour, upright) are decoded and
    resampled on the device, to within a few grey levels of what the CPU gives; the others come
    from `squares`, on the CPU. An image that the device refuses does, too, so that a damaged one
    gets its reason there.
    """
    result = torch.empty((len(places), 3, side, side), dtype=torch.uint8, device=device)
    encoded = [read(place) for place in places]
    plain = [row for row, one in enumerate(encoded) if _is_plain_jpeg(one)]
    try:
        texts = [torch.frombuffer(bytearray(encoded[row]), dtype=torch.uint8) for row in plain]
        decoded = decode_jpeg(texts, mode=ImageReadMode.RGB, device=device) if texts else []
    except RuntimeError:
        plain, decoded = [], []
    for row, image in zip(plain, decoded, strict=True):
        square = interpolate(
            image[None].float(), (side, side), mode="bilinear", antialias=True, align_corners=False
        )
        result[row] = square[0].round().clamp(0, 255).to(torch.uint8)
    others = sorted(set(range(len(places))) - set(plain))
    if others:
        result[others] = squares([places[row] for row in others]).to(device)
    return result


def _is_plain_jpeg(encoded: Any) -> bool:
    """Whether these bytes are a JPEG that needs neither turning nor another colour space."""
    if bytes(encoded[:2]) != b"\xff\xd8":
        return False
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            upright = image.getexif().get(_ORIENTATION, 1) == 1
            return image.format == "JPEG" and image.mode in ("RGB", "L") and upright
    except Exception:  # noqa: BLE001 (the CPU says what is wrong with it)
        return False
