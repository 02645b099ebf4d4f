"""Encoded image bytes -> 8-bit RGB, whatever mode they are stored in."""

import contextlib
import io
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import interpolate

from trainers.data.metadata import keep_orientation, without_metadata

_Result = TypeVar("_Result")
_CPU = torch.device("cpu")

# Odd metadata is no reason to lose an image, and of its size we judge ourselves. Once for the
# process: a context of warnings would be shared by all threads that decode.
warnings.filterwarnings("ignore", module=r"PIL\.")

Image.init()
# Named one by one: Pillow also opens documents, and runs Ghostscript for some of them.
FORMATS = tuple(
    name
    for name in ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
    if name in Image.OPEN
)
"""What is read; AVIF, JPEG2000 and WEBP only if Pillow was built with them."""

SUFFIXES = frozenset(
    suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS
)
"""Endings of files in these formats, lower case, with the dot."""

_OTHERS = (
    "heic heif hif avif avifs webp jp2 jxl jxr bpg mpo "  # phones and the web
    "3fr arw bay cr2 cr3 crw dcr dng erf fff gpr iiq k25 kdc mef mos mrw nef nrw orf pef ptx raf "
    "raw rw2 rwl sr2 srf srw x3f "  # cameras
    "psd psb xcf kra svg svgz exr hdr ico icns cur dds dib pcx dcm fits"  # editors and instruments
)
OTHER_SUFFIXES = frozenset(f".{ending}" for ending in _OTHERS.split()) - SUFFIXES
"""Endings of pictures that are not read."""

DRAFT = 4
"""A JPEG is decoded at a fraction of its size that leaves it at least half of this, in sides."""


class UnreadableImage(Exception):  # noqa: N818 (a reason to skip, not a failure)
    """An image that cannot be decoded; the text is the reason in a few words."""


def decoding_threads(device: torch.device = _CPU) -> int:
    """Threads that decode side by side, for images that are used on `device`.

    Where a CPU computes, too, as many as torch was told to use. Beside another device, the CPUs of
    this process, shared with the other workers that were launched on this machine.
    """
    processors = len(os.sched_getaffinity(0))
    if device.type == "cpu":
        return max(1, min(processors, torch.get_num_threads()))
    return max(1, processors // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def side_by_side(
    make: Callable[[int], _Result], places: Sequence[int], threads: int
) -> list[_Result]:
    """`make(place)` for each place, in their order, on so many threads."""
    threads = min(threads, len(places))
    if threads <= 1:
        return [make(place) for place in places]
    # A pool for each batch costs under a millisecond, and none is left to be shut down.
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        return list(pool.map(make, places))


def decode(encoded: bytes) -> Image.Image:
    """The first frame, upright (EXIF orientation), as an RGB image of its own size.

    Metadata that cannot be read is passed over. Transparency is laid on white. Grey of more than 8
    bits keeps the range of its type, 0 to 65535 for integers and 0 to 1 for floats; an image that
    leaves it is stretched from its own smallest to its own largest finite value. Raises
    UnreadableImage with the reason: not an image in one of FORMATS, truncated or damaged (PNG by
    its checksums), or more pixels than Pillow deems safe.
    """

    def checked(encoded: Any) -> Image.Image:
        with _opened(encoded) as opened:
            opened.verify()
        with _opened(encoded) as opened:
            return _to_rgb(_upright(opened))

    return _despite_metadata(checked, encoded)


def decode_to(encoded: Any, side: int) -> Tensor:
    """The image squeezed to a square of that side, or as it is for 0: uint8 [3, height, width]."""
    return decode_square(encoded, side) if side else decode_whole(encoded)


def decode_whole(encoded: Any) -> Tensor:
    """The image in its own size, uint8 [3, height, width], colours side by side in memory.

    `encoded` has been through `decode` before: checksums are not looked at again. Raises
    UnreadableImage.
    """

    def whole(encoded: Any) -> Tensor:
        with _opened(encoded) as opened:
            return torch.from_numpy(np.array(_to_rgb(_upright(opened)))).permute(2, 0, 1)

    return _despite_metadata(whole, encoded)


def decode_square(encoded: Any, side: int) -> Tensor:
    """The whole image squeezed to a square, uint8 [3, side, side].

    Bilinear, over a wider window when shrinking: in integers, so everywhere the same. `encoded`
    (any buffer) has been through `decode` before: checksums are not looked at again. A JPEG of
    `DRAFT` times the side or more is decoded at a half, a quarter or an eighth of its size.
    Raises UnreadableImage.
    """

    def square(encoded: Any) -> Tensor:
        with _opened(encoded) as opened:
            if opened.format == "JPEG":
                opened.draft(None, (DRAFT * side // 2, DRAFT * side // 2))
            image = _to_rgb(_upright(opened))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        return interpolate(pixels, (side, side), mode="bilinear", antialias=True)[0]

    return _despite_metadata(square, encoded)


def _despite_metadata(read: Callable[[Any], _Result], encoded: Any) -> _Result:
    """What `read` makes of the image; should it fail, of the image without its metadata."""
    with _reasons(encoded):
        try:
            return read(encoded)
        except Exception:
            whole = bytes(encoded)
            if (bare := without_metadata(whole)) != whole:
                with contextlib.suppress(Exception):
                    return read(bare)
            raise


def _opened(encoded: Any) -> Image.Image:
    image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError
    return image


def _upright(image: Image.Image) -> Image.Image:
    if image.format != "TIFF":  # which turns itself as it is loaded, and trips over its metadata
        image.load()
    keep_orientation(image)
    return ImageOps.exif_transpose(image)


@contextlib.contextmanager
def _reasons(encoded: Any) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError:
        text = "not an image" if len(encoded) else "empty file"
        if bytes(encoded[4:8]) == b"ftyp":  # phones name HEIC like JPEG, too
            text += f" that is read: its kind is {bytes(encoded[8:12]).decode(errors='replace')}"
        raise UnreadableImage(text) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UnreadableImage("more pixels than are safe to decode") from None
    except Exception as error:  # noqa: BLE001 (decoders raise anything on broken bytes)
        text = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"broken: {text[:120]}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        image = _to_8_bits(np.asarray(image), largest=1)
    elif image.mode.startswith("I"):
        image = _to_8_bits(np.asarray(image), largest=65535)
    if image.has_transparency_data:
        upper = image.convert("RGBA")
        image = Image.new("RGBA", image.size, "white")
        image.alpha_composite(upper)
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray, largest: int) -> Image.Image:
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    if low >= 0 and high <= largest:
        low, high = 0, largest
    shares = (values.astype(np.float64) - low) / (high - low or 1)
    levels = np.nan_to_num(shares, nan=0, posinf=1, neginf=0) * 255
    return Image.fromarray(levels.round().astype(np.uint8))
