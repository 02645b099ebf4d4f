"""Arrays of pixels as image files: portable grey maps and pixel maps, which have nothing to choose.

What a compressed format writes differs between machines, and a digest would see it.
"""

import numpy as np


def portable(pixels: np.ndarray) -> bytes:
    """The file of uint8 [height, width] or [height, width, 3]; the same bytes on every machine."""
    assert pixels.dtype == np.uint8
    height, width, *colours = pixels.shape
    assert colours in ([], [3])
    return f"P{6 if colours else 5} {width} {height} 255\n".encode() + pixels.tobytes()
