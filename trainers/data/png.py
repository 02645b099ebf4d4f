"""Arrays of pixels as PNG files of the same bytes on every machine.

The deflate libraries of two machines compress differently, and a digest would see it: so the pixels
are stored, not compressed.
"""

import struct
import zlib

import numpy as np

_STORED_AT_MOST = 65535


def png(pixels: np.ndarray) -> bytes:
    """The PNG file of uint8 [height, width, 3], lossless and a little larger than the array."""
    height, width, channels = pixels.shape
    assert pixels.dtype == np.uint8
    assert channels == 3
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + _stored(rows.tobytes()), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


def _stored(raw: bytes) -> bytes:
    """A zlib stream of blocks that are not compressed."""
    blocks = []
    for start in range(0, len(raw), _STORED_AT_MOST):
        block = raw[start : start + _STORED_AT_MOST]
        is_last = start + len(block) == len(raw)
        blocks.append(struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block)
    return b"\x78\x01" + b"".join(blocks) + struct.pack(">I", zlib.adler32(raw))
