"""Stored arrays come back unchanged, from bytes that depend on nothing else."""

import numpy as np
import pytest

from trainers.data.decode import decode
from trainers.data.portable import portable


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (200, 150), (1, 30_000)])
@pytest.mark.parametrize("colours", [(), (3,)])
def test_pixels_come_back_unchanged(size, colours):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, *colours), dtype=np.uint8)
    expected = pixels if colours else np.stack([pixels] * 3, axis=2)
    for given in (pixels, np.asfortranarray(pixels)):
        assert (np.asarray(decode(portable(given))) == expected).all()


def test_the_bytes_are_a_header_and_the_pixels():
    assert portable(np.array([[7, 8]], np.uint8)) == b"P5 2 1 255\n\7\10"
    assert portable(np.array([[[1, 2, 3]]], np.uint8)) == b"P6 1 1 255\n\1\2\3"
