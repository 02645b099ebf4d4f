"""Stored arrays come back unchanged, from bytes that depend on nothing else."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from trainers.data.decode import decode
from trainers.data.png import png


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (96, 96), (200, 150), (1, 30_000)])
def test_pixels_come_back_unchanged(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    encoded = png(pixels)
    assert (np.asarray(decode(encoded)) == pixels).all()  # decode verifies all checksums
    assert Image.open(io.BytesIO(encoded)).format == "PNG"


def test_the_bytes_are_those_of_every_machine():
    ramp = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert hashlib.sha256(png(ramp)).hexdigest() == (
        "bc174d682fa5422e2d86e5538f5a8ad4edf2b3c247ca829f078e66981657ecd7"
    )
