"""The embedded crops of photographs: where they come from, and that no pixel is in both parts."""

import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest
import skimage.data
import torch
from sklearn.datasets import load_sample_image
from torch.nn.functional import avg_pool2d

from trainers.config import DataConfig
from trainers.data.image_set import open_images
from trainers.data.photographs import CLASS_NAMES, SHRUNK_BY, SIDE, photographs
from trainers.errors import DataError

SOURCES = {
    "china": lambda: load_sample_image("china.jpg"),
    "flower": lambda: load_sample_image("flower.jpg"),
    "astronaut": skimage.data.astronaut,
    "chelsea": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
    "rocket": skimage.data.rocket,
    "hubble_deep_field": skimage.data.hubble_deep_field,
    "camera": skimage.data.camera,
    "brick": skimage.data.brick,
    "grass": skimage.data.grass,
    "gravel": skimage.data.gravel,
}


@pytest.fixture(scope="module")
def crops():
    return photographs()


@pytest.fixture(scope="module")
def images():
    return open_images(DataConfig(source="photographs", image_size=48), None)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_each_crop_is_a_window_of_its_photograph_shrunk_by_a_whole_factor(crops, name):
    number, factor = CLASS_NAMES.index(name), SHRUNK_BY[name]
    source = SOURCES[name]()
    places = (crops.corners[:, 0] == number).nonzero()[:, 0]
    for place in places[::17].tolist():
        _, top, left = (crops.corners[place] * factor).tolist()
        window = source[top : top + SIDE * factor, left : left + SIDE * factor]
        window = np.broadcast_to(window.reshape(*window.shape[:2], -1), (*window.shape[:2], 3))
        means = avg_pool2d(torch.from_numpy(window.copy()).double().permute(2, 0, 1), factor)
        expected = (means + 0.5).floor().to(torch.uint8).permute(1, 2, 0)
        assert np.array_equal(crops.pixels[place], expected.numpy())


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_no_pixel_is_in_both_parts(crops, name):
    mine = crops.corners[:, 0] == CLASS_NAMES.index(name)
    seen = [np.zeros((512, 512), bool), np.zeros((512, 512), bool)]
    for (_, top, left), held_out in zip(
        crops.corners[mine].tolist(), crops.held_out[mine].tolist(), strict=True
    ):
        seen[held_out][top : top + SIDE, left : left + SIDE] = True
    assert seen[0].any()
    assert seen[1].any()
    assert not (seen[0] & seen[1]).any()


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_crops_reach_all_edges_of_a_photograph(crops, name):
    mine = crops.corners[crops.corners[:, 0] == CLASS_NAMES.index(name), 1:]
    height, width = (side // SHRUNK_BY[name] for side in SOURCES[name]().shape[:2])
    assert mine.min(dim=0).values.tolist() == [0, 0]
    assert (mine.max(dim=0).values + SIDE).tolist() == [height, width]
    assert 200 <= min(height, width) <= 300


def test_the_label_is_the_photograph_and_each_gives_as_many_crops_to_either_part(crops):
    assert torch.equal(crops.labels, crops.corners[:, 0])
    assert crops.labels[~crops.held_out].bincount().tolist() == [168] * 11
    assert crops.labels[crops.held_out].bincount().tolist() == [56] * 11


def test_no_crop_is_there_twice(crops):
    assert len(crops.corners.unique(dim=0)) == len(crops.corners)


def test_the_bytes_are_the_same_everywhere(crops):
    digest = hashlib.sha256(crops.pixels.tobytes()).hexdigest()
    assert digest == "f4c2405d1eaaa7f7cc45bd11c82bd262211c60aadf848bdd1d6c2d59631e85d1"


def test_opened_by_name_it_is_these_crops_with_their_split(crops, images):
    assert len(images) == len(crops.labels) == 2464
    assert images.class_names == CLASS_NAMES
    assert torch.equal(images.test, crops.held_out.nonzero()[:, 0])
    assert len(images.train) + len(images.test) == len(images)
    assert images.declared
    places = torch.tensor([0, 1000, 2463])
    expected = torch.from_numpy(crops.pixels[places.numpy()]).permute(0, 3, 1, 2)
    assert torch.equal(images.pixels(places), expected)


def test_digest_and_identifiers_do_not_depend_on_the_size(images):
    other = open_images(DataConfig(source="photographs", image_size=32), None)
    assert other.digest == images.digest
    assert torch.equal(other.identifiers, images.identifiers)
    assert other.pixels(torch.arange(2)).shape == (2, 3, 32, 32)


def test_opening_takes_less_than_a_second():
    start = time.process_time()
    open_images(DataConfig(source="photographs"), None)
    assert time.process_time() - start < 1


@pytest.mark.slow
def test_other_data_sets_do_not_import_scikit_image():
    code = (
        "import sys; from trainers.config import DataConfig; "
        "from trainers.data.image_set import open_images; open_images(DataConfig(), None); "
        "sys.exit('skimage' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_misspelt_name_is_one_line_with_the_nearest(tmp_path):
    with pytest.raises(DataError, match="did you mean photographs") as caught:
        open_images(DataConfig(source="photograph"), tmp_path)
    assert "\n" not in str(caught.value)


def test_the_first_images_in_shuffled_order_are_of_all_kinds(images):
    def labels(places):
        return set(images.labels[places].tolist())

    first = images.shuffled(images.test)[:64]
    assert len(labels(images.test[:32])) == 1
    assert len(labels(first)) == len(images.class_names)
    assert sorted(images.shuffled(images.test).tolist()) == images.test.tolist()
    assert torch.equal(images.shuffled(images.test.flip(0))[:64], first)
