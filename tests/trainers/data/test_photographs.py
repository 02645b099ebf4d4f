"""The embedded crops of photographs: where they come from, and that no pixel is in both parts."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image

from trainers.config import DataConfig
from trainers.data.image_set import open_images
from trainers.data.photographs import CLASS_NAMES, FILES, SIDE, photographs
from trainers.errors import DataError


@pytest.fixture(scope="module")
def crops():
    return photographs()


@pytest.fixture(scope="module")
def images():
    return open_images(DataConfig(source="photographs", image_size=48), None)


def test_each_crop_is_a_window_of_its_photograph(crops):
    pictures = [load_sample_image(file) for file in FILES]
    for place in range(0, len(crops.labels), 97):
        number, top, left = crops.corners[place].tolist()
        window = pictures[number][top : top + SIDE, left : left + SIDE]
        assert np.array_equal(crops.pixels[place], window)


def test_no_pixel_is_in_both_parts(crops):
    for number in range(len(FILES)):
        mine = crops.corners[:, 0] == number
        right_of_training = (crops.corners[mine & ~crops.held_out, 2] + SIDE).max()
        assert right_of_training <= crops.corners[mine & crops.held_out, 2].min()


def test_both_parts_have_every_label_in_the_same_shares(crops):
    parts = [crops.labels[part].bincount(minlength=6) for part in (crops.held_out, ~crops.held_out)]
    shares = [counts / counts.sum() for counts in parts]
    assert all((counts > 50).all() for counts in parts)
    torch.testing.assert_close(*shares)


def test_opened_by_name_it_is_these_crops_with_their_split(crops, images):
    assert len(images) == len(crops.labels) == 3008
    assert images.class_names == CLASS_NAMES
    assert torch.equal(images.test, crops.held_out.nonzero()[:, 0])
    assert len(images.train) + len(images.test) == len(images)
    assert images.declared
    places = torch.tensor([0, 1000, 3007])
    expected = torch.from_numpy(crops.pixels[places.numpy()]).permute(0, 3, 1, 2)
    assert torch.equal(images.pixels(places), expected)


def test_digest_and_identifiers_do_not_depend_on_the_size(images):
    other = open_images(DataConfig(source="photographs", image_size=32), None)
    assert other.digest == images.digest
    assert torch.equal(other.identifiers, images.identifiers)
    assert other.pixels(torch.arange(2)).shape == (2, 3, 32, 32)


def test_a_misspelt_name_is_one_line_with_the_nearest(tmp_path):
    with pytest.raises(DataError, match="did you mean photographs") as caught:
        open_images(DataConfig(source="photograph"), tmp_path)
    assert "\n" not in str(caught.value)
