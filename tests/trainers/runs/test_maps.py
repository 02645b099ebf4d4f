"""Maps of a few held-out images: written, and read again."""

import dataclasses

import numpy as np
import pytest

from trainers.runs.maps import KeptMaps, content_of, name_of, parse, step_of

BITS = np.random.default_rng(0)


def maps(*shape):
    drawn = BITS.random((*shape, 3, 4), np.float32)
    return drawn / drawn.sum((-2, -1), keepdims=True)


def kept(**changes):
    everything = KeptMaps(
        images=np.array([5, -3, 2**62], np.int64),
        pixels=BITS.integers(0, 256, (3, 6, 6, 3), np.uint8),
        attention=maps(2, 3),
        heads=maps(4, 3),
        rollout=maps(3),
        influence=maps(2),
    )
    return dataclasses.replace(everything, **changes)


def test_maps_are_read_again_to_half_a_255th_of_their_largest_value():
    written = kept()
    read = parse(content_of(written))
    assert read.images.tolist() == written.images.tolist()
    assert np.array_equal(read.pixels, written.pixels)
    for name in ("attention", "heads", "rollout", "influence"):
        before, after = getattr(written, name), getattr(read, name)
        largest = before.max((-2, -1), keepdims=True)
        assert after.dtype == np.float32
        assert after.shape == before.shape
        assert (abs(after - before) <= largest / 255 * 0.501).all()
        assert after.max((-2, -1)) == pytest.approx(largest[..., 0, 0], rel=1e-6)


def test_the_same_maps_are_the_same_file_and_a_byte_for_each_patch():
    written = kept(pixels=None, attention=maps(2, 3), heads=maps(0, 3))
    assert content_of(written) == content_of(written)
    whole = kept(attention=np.full((12, 8, 50, 50), 1 / 2500, np.float32))
    assert len(content_of(whole)) == pytest.approx(12 * 8 * 50 * 50, rel=0.02)


def test_what_has_no_map_is_nan_again():
    attention = maps(2, 3)
    attention[1, 2] = np.nan
    read = parse(content_of(kept(attention=attention)))
    assert np.isnan(read.attention[1, 2]).all()
    assert np.isfinite(read.attention).sum() == 5 * 12


def test_maps_that_are_not_there_are_none():
    written = kept(
        pixels=None, attention=maps(0, 3), heads=maps(0, 3), rollout=None, influence=None
    )
    read = parse(content_of(written))
    assert (read.pixels, read.rollout, read.influence) == (None, None, None)
    assert read.attention.shape == (0, 3, 3, 4)
    assert read.heads.shape == (0, 3, 3, 4)


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_holds_no_maps_is_refused(content):
    with pytest.raises(ValueError, match=r"\S"):
        parse(content)


def test_a_file_is_named_by_its_step():
    assert step_of(name_of(300)) == 300
    for other in ("maps-.safetensors", "xmaps-1.safetensors", "checkpoint-1.safetensors"):
        assert step_of(other) is None
