"""All crops of a batch, and what they may depend on."""

import hashlib

import pytest
import scipy.stats
import torch

from tests.trainers.data.drawn import draws_of
from trainers.config import AugmentConfig
from trainers.data.augment import augment, shuffle
from trainers.randomness.forward_draws import keyed
from trainers.randomness.streams import Stream


def test_flips_are_fair():
    flips = int((draws_of(20_000)["flip"] < 0.5).sum())
    assert scipy.stats.binomtest(flips, 20_000).pvalue > 1e-3


def noise(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


IMAGES = {
    "squares cut between pixels": noise(24, 3, 48, 48),
    "squares of the size of a crop": noise(24, 3, 16, 16),
    "squares cut at pixels": noise(24, 3, 80, 80),
    "originals": [noise(3, 40 + row, 90 - row) for row in range(24)],
}
EVERYTHING = AugmentConfig(blur_others=0.5, solarize=0.5, shuffle="patches")


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_the_chain_of_crops_does_not_depend_on_the_parts_of_a_batch(images):
    identifiers, epochs = torch.arange(24) * 1_000_003, torch.arange(24) % 2
    chains, crops = set(), []
    for workers in (1, 2, 3, 4, 24):
        parts = [
            augment(
                images[rows.start : rows.stop],
                torch.linspace(0.5, 2, 24)[rows.start : rows.stop],
                identifiers[rows.start : rows.stop],
                epochs[rows.start : rows.stop],
                EVERYTHING,
                Stream(0, "augmentation"),
                4,
            )
            for rows in (
                range(24 // workers * rank, 24 // workers * (rank + 1)) for rank in range(workers)
            )
        ]
        digests = torch.cat([part.digest for part in parts])
        chains.add(hashlib.blake2b(torch.stack([identifiers, digests]).numpy().tobytes()).digest())
        views = [part.global_crops.unflatten(0, (2, -1)) for part in parts]
        crops.append(torch.cat(views, dim=1))
    assert len(chains) == 1
    assert all(torch.equal(one, crops[0]) for one in crops)


def test_views_epochs_and_images_get_crops_of_their_own():
    images = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8).expand(3, -1, -1, -1)
    views = augment(
        images,
        torch.ones(3),
        torch.tensor([4, 4, 5]),
        torch.tensor([0, 1, 0]),
        AugmentConfig(),
        Stream(0, "augmentation"),
        4,
    )
    crops = views.global_crops
    assert len({tuple(crop.flatten().tolist()) for crop in crops}) == len(crops) == 6
    assert len(set(views.digest.tolist())) == 3


def test_the_digest_sees_a_single_changed_pixel_value():
    images = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    plain = AugmentConfig(
        global_scale=(1.0, 1.0),
        aspect_ratio=(1.0, 1.0),
        flip=0.0,
        jitter=0.0,
        grayscale=0.0,
        blur_first=0.0,
        blur_others=0.0,
        local_crops=0,
    )
    stream = Stream(0, "augmentation")
    keys = (torch.ones(1), torch.tensor([1]), torch.tensor([0]), plain, stream, 4)
    before = augment(images, *keys).digest
    images[0, 1, 7, 7] ^= 1
    assert augment(images, *keys).digest != before


def test_crops_are_8_bit_values():
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    views = augment(
        images, torch.ones(4), torch.arange(4), torch.zeros(4, dtype=torch.int64),
        AugmentConfig(), Stream(0, "augmentation"), 4,
    )  # fmt: skip
    for crops in (views.global_crops, views.local_crops):
        assert crops.dtype == torch.uint8
        assert crops.unique().numel() > 100


@pytest.mark.parametrize(("block", "side"), [(4, 16), (1, 8), (16, 16)])
def test_shuffling_moves_whole_blocks_each_crop_in_its_own_order(block, side):
    crops = torch.randint(
        0, 256, (6, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    identifiers = torch.arange(3)
    source = keyed(0, "shuffle", identifiers, torch.zeros_like(identifiers), range(2))
    moved = shuffle(crops, source, block)

    def blocks(pixels):
        parts = pixels.unfold(1, block, block).unfold(2, block, block).permute(1, 2, 0, 3, 4)
        return [tuple(part.flatten().tolist()) for part in parts.flatten(0, 1)]

    orders = set()
    for before, after in zip(crops, moved, strict=True):
        assert sorted(blocks(before)) == sorted(blocks(after))
        orders.add(tuple(blocks(before).index(one) for one in blocks(after)))
    assert len(orders) == (6 if block < side else 1)
    again = keyed(0, "shuffle", identifiers[1:2], torch.zeros(1, dtype=torch.int64), range(1, 2))
    assert torch.equal(shuffle(crops[4:5], again, block), moved[4:5])


@pytest.mark.parametrize("kind", ["patches", "pixels"])
def test_shuffled_training_crops_are_the_same_pixels(kind):
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    common = (images, torch.ones(4), torch.arange(4), torch.zeros(4, dtype=torch.int64))
    stream = Stream(0, "augmentation")
    plain = augment(*common, AugmentConfig(), stream, 4)
    moved = augment(*common, AugmentConfig(shuffle=kind), stream, 4)
    for one, other in (
        (plain.global_crops, moved.global_crops),
        (plain.local_crops, moved.local_crops),
    ):
        assert not torch.equal(one, other)
        assert torch.equal(one.flatten(2).sort(2).values, other.flatten(2).sort(2).values)
    assert not torch.equal(plain.digest, moved.digest)
