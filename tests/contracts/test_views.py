"""Crops made on a device: the bits of the CPU, and a host that never waits for it."""

import pytest
import torch

from tests.contracts.pretend_device import DEVICE, pretending
from trainers.config import AugmentConfig
from trainers.data.augment import augment, evaluation_crops, normalize
from trainers.randomness.streams import Stream
from trainers.system.transfer import sent

BATCH = 6
EVERYTHING = AugmentConfig(
    global_size=32, local_size=16, blur_others=0.5, solarize=0.5, shuffle="patches"
)


def noise(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def moved(images):
    if isinstance(images, torch.Tensor):
        return sent([images], DEVICE)[0]
    return sent(images, DEVICE)


IMAGES = {
    "squares": noise(BATCH, 3, 80, 80),
    "originals": [noise(3, 40 + 9 * row, 90 - 11 * row) for row in range(BATCH)],
}


def views_of(images):
    identifiers = torch.arange(BATCH) * 1_000_003
    keys = torch.linspace(0.5, 2, BATCH), identifiers, identifiers % 2
    return augment(images, *keys, EVERYTHING, Stream(0, "augmentation"), 4)


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_crops_on_the_device_are_those_of_the_cpu_and_nobody_waits_for_them(images):
    here = views_of(images)
    with pretending() as counts:
        there = views_of(moved(images))
        whole = normalize(there.global_crops)
    assert not counts.waits
    # Deterministic algorithms sort to put values at places, and may have the host wait.
    assert not [name for name in counts.launches if "put" in name or "scatter" in name]
    assert there.global_crops.device == there.digest.device == whole.device == DEVICE
    assert torch.equal(there.global_crops.cpu(), here.global_crops)
    assert torch.equal(there.local_crops.cpu(), here.local_crops)
    assert torch.equal(there.digest.cpu(), here.digest)
    assert torch.equal(whole.cpu(), normalize(here.global_crops))


def test_small_squares_are_cut_on_the_cpu_and_sent_without_waiting():
    with pretending() as counts:
        there = views_of(noise(BATCH, 3, 48, 48)).on(DEVICE)
    assert not counts.waits
    assert there.local_crops.device == DEVICE
    assert there.on(DEVICE) is there


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_evaluation_sees_the_same_pixels_on_the_device(images):
    aspect = torch.linspace(0.5, 2, BATCH)
    with pretending() as counts:
        there = evaluation_crops(moved(images), aspect, 32)
    assert not counts.waits
    assert torch.equal(there.cpu(), evaluation_crops(images, aspect, 32))


def test_tensors_of_all_kinds_are_sent_at_once():
    given = [
        torch.arange(5), torch.tensor([True, False, True]), torch.rand(2, 3),
        torch.zeros(0, dtype=torch.int64), noise(3, 5).t(), torch.tensor(2.5),
    ]  # fmt: skip
    with pretending() as counts:
        there = sent(given, DEVICE)
    assert not counts.waits
    for one, other in zip(given, there, strict=True):
        assert other.device == DEVICE
        assert one.dtype == other.dtype
        assert torch.equal(one, other.cpu())
