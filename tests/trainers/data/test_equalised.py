"""Crops of photographs with the same pixels in another order."""

import hashlib

import numpy as np
import pytest
import torch

from trainers.config import DataConfig, override
from trainers.config.recipe import recipe
from trainers.data.equalised import equalised
from trainers.data.image_set import open_images
from trainers.data.photographs import CLASS_NAMES, photographs
from trainers.evaluation.references import reference_accuracies


@pytest.fixture(scope="module")
def before():
    return photographs()


@pytest.fixture(scope="module")
def crops():
    return equalised()


def test_every_crop_has_nine_pixels_of_each_level(crops):
    assert crops.pixels.shape == (2464, 48, 48, 3)
    assert np.array_equal(crops.pixels[..., 0], crops.pixels[..., 1])
    assert np.array_equal(crops.pixels[..., 0], crops.pixels[..., 2])
    for crop in crops.pixels[..., 0]:
        assert np.bincount(crop.ravel(), minlength=256).tolist() == [9] * 256


def test_what_was_brighter_is_nowhere_darker(before, crops):
    for place in range(0, 2464, 77):
        luma = (before.pixels[place].astype(int) * (299, 587, 114)).sum(2).ravel()
        levels = crops.pixels[place, ..., 0].ravel().astype(int)
        order = np.argsort(luma, kind="stable")
        ends = np.flatnonzero(np.diff(luma[order], append=-1))
        # The darkest of a luma is no darker than the brightest of the one before.
        brightest = -1
        for part in np.split(levels[order], ends + 1)[:-1]:
            assert part.min() >= brightest
            brightest = part.max()


def test_what_was_plain_is_noise_without_a_ramp(before, crops):
    """The correlation of level and place where all pixels were of one luma, over many crops."""
    luma = (before.pixels.astype(int) * (299, 587, 114)).sum(3)
    found = []
    for place in range(2464):
        values, counts = np.unique(luma[place], return_counts=True)
        rows, columns = np.nonzero(luma[place] == values[counts.argmax()])
        if counts.max() > 200:
            levels = crops.pixels[place, rows, columns, 0]
            found.append([np.corrcoef(levels, rows)[0, 1], np.corrcoef(levels, columns)[0, 1]])
    means = np.mean(found, axis=0)
    assert len(found) > 50
    assert np.all(np.abs(means) < 4 / np.sqrt(200 * len(found)))


def test_labels_and_what_is_held_out_are_those_of_the_photographs(before, crops):
    images = open_images(DataConfig(source="photographs_equalised", image_size=48), None)
    colours = open_images(DataConfig(source="photographs", image_size=48), None)
    assert torch.equal(crops.corners, before.corners)
    assert torch.equal(images.labels, colours.labels)
    assert torch.equal(images.test, colours.test)
    assert images.class_names == CLASS_NAMES
    assert images.digest != colours.digest
    places = torch.tensor([3, 2000])
    expected = torch.from_numpy(crops.pixels[places.numpy()]).permute(0, 3, 1, 2)
    assert torch.equal(images.pixels(places), expected)


def test_neither_mean_nor_histogram_tells_a_crop_as_it_is():
    base = recipe("equalised_tiny")
    images = open_images(base.data, None)
    found = reference_accuracies(images, base, ("pixels", "mean_colour", "histogram"))
    chance = 1 / 11
    # Four deviations of a share of 616 images.
    far = 4 * (chance * (1 - chance) / 616) ** 0.5
    assert found["mean_colour"] < chance + far
    assert found["histogram"] < chance + far
    assert found["pixels"] < 0.25
    smaller = override(base, {"augment.global_size": 24, "augment.local_size": 12})
    assert reference_accuracies(images, smaller, ("histogram",))["histogram"] > 0.3


def test_the_bytes_are_the_same_everywhere(crops):
    digest = hashlib.sha256(crops.pixels.tobytes()).hexdigest()
    assert digest == "f0e66a507766dc26a569a7bc774d4767ff661aa8e0c3e27db0d834cca6e07c8e"
