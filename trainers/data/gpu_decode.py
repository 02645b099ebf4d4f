"""JPEGs decoded in batches on a CUDA device (nvJPEG).

The decoder writes where memory is free for the stream that calls it, in a stream of its own that
does not wait for that one (pytorch/vision#9606). So it is called from a stream in which nothing
else is queued, by one thread at a time, and what it made is handed over: the allocator then gives
that memory away again once all who read it are done. The call itself returns when all is decoded.

Tests run this with the decoder of the CPU. torchvision 0.29 announces that its decoder will move to
TorchCodec; `decode_jpeg` is the only name that has to change here.
"""

import functools
import io
import re
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from trainers.data.cut import Images, cut_by_products
from trainers.data.decode import FORMATS
from trainers.system.memory import is_out_of_memory
from trainers.system.transfer import Beside

warnings.filterwarnings(
    "ignore", "The image decoding and encoding capabilities", DeprecationWarning
)
_ORIENTATION = 0x0112

_ALLOCATOR_FAILURE = re.compile(r"Failed to [^:]+: 5\b")
"""How torchvision says that nvJPEG itself, beside PyTorch, was given no memory."""

_decoding = threading.Lock()
_apart = functools.cache(Beside)


def decode_on(
    device: torch.device,
    places: list[int],
    read: Callable[[int], Any],
    otherwise: Callable[[list[int], torch.device], Images],
    side: int,
) -> Images:
    """Images on `device`: as decoded, or squeezed to squares uint8 [b, 3, side, side] if `side`.

    `read` gives the bytes at a place. Plain JPEGs (grey or colour, upright) are decoded on the
    device, to within a few grey levels of what the CPU gives; the others come from `otherwise`, on
    the CPU. An image that the device refuses does, too, so that a damaged one gets its reason
    there; those beside it stay what they are. Raises RuntimeError when the device has no memory.
    """
    encoded = [read(place) for place in places]
    plain = [row for row, one in enumerate(encoded) if _is_plain_jpeg(one)]
    texts = [torch.frombuffer(bytearray(encoded[row]), dtype=torch.uint8) for row in plain]
    with _decoding:
        apart = _apart(device)
        with apart.making():
            decoded = _decoded(texts, device)
        apart.take([image for image in decoded if image is not None], apart.done())
    found = dict(zip(plain, decoded, strict=True))
    images = {row: image for row, image in found.items() if image is not None}
    if side and images:
        images = dict(zip(images, _squeezed(list(images.values()), side), strict=True))
    rows = [row for row in range(len(places)) if row not in images]
    if rows:
        others = otherwise([places[row] for row in rows], device)
        images |= dict(zip(rows, others, strict=True))
    ordered = [images[row] for row in range(len(places))]
    return torch.stack(ordered) if side else ordered


def _decoded(texts: list[Tensor], device: torch.device) -> list[Tensor | None]:
    """Each image, or None where the decoder refuses it, which it says of a whole batch."""
    if not texts:
        return []
    try:
        return list(decode_jpeg(texts, mode=ImageReadMode.RGB, device=device))
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        if _ALLOCATOR_FAILURE.search(str(error)):
            raise torch.OutOfMemoryError("out of memory in nvJPEG") from error
        if len(texts) == 1:
            return [None]
        middle = len(texts) // 2
        return _decoded(texts[:middle], device) + _decoded(texts[middle:], device)


def _squeezed(images: list[Tensor], side: int) -> Tensor:
    whole = [(0, image.shape[1], 0, image.shape[2]) for image in images]
    upright = torch.zeros(len(images), dtype=torch.bool)
    return cut_by_products(images, whole, side, upright, "bilinear")


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
