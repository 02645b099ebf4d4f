"""The embedded digits, as they are and resampled."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from trainers.config import DataConfig
from trainers.data.image_set import open_images


@pytest.fixture(scope="module")
def eight():
    return open_images(DataConfig(image_size=8), None)


def test_values_are_exact_at_their_own_size(eight):
    pixels = eight.pixels(torch.arange(1797))
    assert pixels.shape == (1797, 3, 8, 8)
    assert pixels.dtype == torch.uint8
    expected = torch.from_numpy(np.round(load_digits().images * 255 / 16))
    for channel in range(3):
        assert torch.equal(pixels[:, channel].double(), expected)


def test_labels_are_the_ten_digits(eight):
    assert len(eight) == 1797
    assert eight.labels.tolist() == load_digits().target.tolist()
    assert eight.class_names == tuple("0123456789")
    assert eight.skipped == ()


def test_aspect_is_one(eight):
    assert torch.equal(eight.aspect(torch.tensor([5, 3])), torch.ones(2))


def test_resampling_keeps_the_mean_and_the_grey(eight):
    twice = open_images(DataConfig(image_size=16), None)
    places = torch.tensor([4, 0, 1796])
    pixels = twice.pixels(places)
    assert pixels.shape == (3, 3, 16, 16)
    assert torch.equal(pixels[:, 0], pixels[:, 2])
    apart = pixels.double().mean((1, 2, 3)) - eight.pixels(places).double().mean((1, 2, 3))
    assert apart.abs().max() < 2


def test_digest_identifiers_and_split_do_not_depend_on_the_size(eight):
    other = open_images(DataConfig(image_size=12), None)
    assert other.digest == eight.digest
    assert torch.equal(other.identifiers, eight.identifiers)
    assert torch.equal(other.test, eight.test)


def test_a_fifth_of_every_digit_is_held_out(eight):
    assert len(eight.test) == 359
    assert len(eight.train) == 1797 - 359
    exact = eight.labels.bincount() * 359 / 1797
    assert ((eight.labels[eight.test].bincount() - exact).abs() < 1).all()
