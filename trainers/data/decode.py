"""Encoded image bytes -> 8-bit RGB; every mode that Pillow reads."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


class UnreadableImage(Exception):  # noqa: N818 (a reason to skip, not a failure)
    """An image that cannot be decoded; the text is the reason in a few words."""


def decode(encoded: bytes) -> Image.Image:
    """The first frame, upright (EXIF orientation), as an RGB image of its own size.

    16-bit grey is scaled down to 8 bits, floating-point grey from its own range; transparency is
    laid on white. Raises UnreadableImage with the reason.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(encoded)) as opened:
                opened.load()
                return _to_rgb(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        reason = "not an image" if encoded else "empty file"
        raise UnreadableImage(reason) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UnreadableImage("more pixels than are safe to decode") from None
    except Exception as error:  # noqa: BLE001 (decoders raise anything on broken bytes)
        text = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"broken: {text[:120]}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        if image.mode == "F":
            low, high = float(np.nanmin(values)), float(np.nanmax(values))
            values = (values - low) / ((high - low) or 1.0) * 65535
        return Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert(
            "RGB"
        )
    return image.convert("RGB")
