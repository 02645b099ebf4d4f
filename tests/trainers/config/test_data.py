"""Knobs of images and crops: squeezing, and what it is said to cost."""

import pytest

from trainers.config import TrainConfig, override
from trainers.config.recipe import recipe
from trainers.errors import ConfigError


def with_side(side):
    return override(TrainConfig(), {"data.image_size": side})


def test_nothing_is_squeezed_with_zero_whatever_the_patches():
    config = override(with_side(0), {"model.patch_size": 8, "augment.global_size": 24})
    assert config.data.image_size == 0


@pytest.mark.parametrize("side", [-1, 1, 3, 4097])
def test_a_square_too_small_or_too_large_is_refused(side):
    with pytest.raises(ConfigError, match="image_size") as caught:
        with_side(side)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("side", "noted"), [(0, False), (64, False), (68, True), (256, True)])
def test_squeezing_of_more_than_small_squares_is_noted_with_its_price(side, noted):
    note = with_side(side).data.squeezing_note()
    assert bool(note) == noted
    assert "\n" not in note
    if noted:
        assert f"squares of {side} pixels" in note
        assert "data.image_size 0" in note


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_published_recipes_cut_from_the_images_themselves(size):
    assert recipe(f"dino_vit_{size}_16").data.image_size == 0


@pytest.mark.parametrize("name", ["digits_tiny", "photographs_tiny"])
def test_embedded_recipes_say_nothing_of_squeezing(name):
    assert recipe(name).data.squeezing_note() == ""
