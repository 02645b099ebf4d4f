"""Crops: boxes, resampling, colours, and what they may depend on."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from trainers.config import AugmentConfig
from trainers.data.augment import (
    augment,
    blur,
    colours,
    crop_boxes,
    cut,
    draw,
    evaluation_crops,
    resample,
    shuffle,
    whole_square,
)
from trainers.randomness.forward_draws import keyed
from trainers.randomness.streams import Stream

NO_FLIP = torch.tensor([False])


def draws_of(count, view=0):
    identifiers = torch.arange(count)
    return draw(
        Stream(0, "augmentation"), torch.zeros_like(identifiers), identifiers, range(view, view + 1)
    )


@settings(deadline=None, max_examples=50)
@given(
    low=st.floats(0.05, 1),
    high=st.floats(0.05, 1),
    ratio=st.floats(1, 3),
    aspect=st.floats(0.2, 5),
    seed=st.integers(0, 2**62),
)
def test_boxes_lie_inside_the_image(low, high, ratio, aspect, seed):
    low, high = min(low, high), max(low, high)
    identifiers = torch.arange(64) + seed
    drawn = draw(Stream(1, "x"), torch.zeros_like(identifiers), identifiers, range(1))
    boxes = crop_boxes(drawn, torch.full((64,), aspect), (low, high), (1 / ratio, ratio))
    top, left, height, width = boxes.unbind(1)
    assert (boxes >= 0).all()
    assert (height > 0).all()
    assert (width > 0).all()
    assert (top + height <= 1 + 1e-6).all()
    assert (left + width <= 1 + 1e-6).all()


def test_areas_are_uniform_and_ratios_log_uniform_where_boxes_fit():
    # At areas up to 0.5 and ratios within 4/3 no box sticks out of a square image.
    boxes = crop_boxes(draws_of(20_000), torch.ones(20_000), (0.2, 0.5), (0.75, 4 / 3))
    _, _, height, width = boxes.double().unbind(1)
    area = scipy.stats.uniform(0.2, 0.3)
    assert scipy.stats.kstest((height * width).numpy(), area.cdf).pvalue > 1e-3
    log_ratio = scipy.stats.uniform(math.log(0.75), 2 * math.log(4 / 3))
    assert scipy.stats.kstest((width / height).log().numpy(), log_ratio.cdf).pvalue > 1e-3


def test_the_ratio_is_that_of_pixels_in_the_original():
    wide = 2.0
    boxes = crop_boxes(draws_of(500), torch.full((500,), wide), (0.2, 0.3), (1.0, 1.0))
    _, _, height, width = boxes.unbind(1)
    torch.testing.assert_close(width * wide, height)


def test_flips_are_fair():
    flips = int((draws_of(20_000)["flip"] < 0.5).sum())
    assert scipy.stats.binomtest(flips, 20_000).pvalue > 1e-3


@pytest.mark.parametrize("size", [8, 16, 40])
def test_the_whole_image_is_resampled_as_by_antialiased_interpolation(size):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = torch.tensor([[0.0, 0, 1, 1]]).expand(2, 4)
    ours = resample(images, whole, size, NO_FLIP.expand(2))
    reference = functional.interpolate(
        images, (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)


def test_a_box_on_pixel_borders_is_that_piece_and_a_flip_mirrors_it():
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([[4 / 16, 2 / 16, 8 / 16, 8 / 16]])
    piece = images[:, :, 4:12, 2:10]
    torch.testing.assert_close(resample(images, box, 8, NO_FLIP), piece)
    torch.testing.assert_close(resample(images, box, 8, ~NO_FLIP), piece.flip(3))


def test_evaluation_takes_the_centred_square_of_the_original():
    torch.testing.assert_close(
        whole_square(torch.tensor([2.0, 0.5])),
        torch.tensor([[0, 0.25, 1, 0.5], [0.25, 0, 0.5, 1]]),
    )
    square = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    crops = evaluation_crops(square, torch.ones(1), 16)
    assert torch.equal(crops, square)


@pytest.mark.parametrize("size", [96, 224])
def test_a_large_image_is_cut_at_whole_pixels_close_to_the_box(size):
    smooth = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    images = functional.interpolate(smooth, 256, mode="bicubic").clamp(0, 1).mul(255).byte()
    boxes = crop_boxes(draws_of(6), torch.ones(6), (0.05, 1.0), (0.75, 4 / 3))
    boxes[0] = torch.tensor([0.9999, 0.9999, 0.0001, 0.0001])
    boxes[1] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    flip = torch.tensor([False, True] * 3)
    ours = cut(images, boxes, size, flip)
    exact = resample(images.float(), boxes, size, flip)
    assert ours.dtype == torch.uint8
    # Half a pixel of these images is less than 12 levels, apart from the corner pixel.
    assert (ours[1:].float() - exact[1:]).abs().max() < 12
    assert torch.equal(ours[0].amax((1, 2)), images[0, :, -1, -1])


def test_blur_keeps_constants_and_follows_the_gaussian():
    flat = torch.full((1, 3, 9, 9), 0.3)
    torch.testing.assert_close(blur(flat, torch.tensor([1.5]), 5), flat)
    points = torch.zeros(2, 3, 33, 33)
    points[..., 16, 16] = 1
    sigmas = torch.tensor([1.5, 0.7])
    for blurred, sigma in zip(blur(points, sigmas, 6), sigmas.tolist(), strict=True):
        weights = [math.exp(-0.5 * (d / sigma) ** 2) for d in range(-6, 7)]
        line = torch.tensor(weights, dtype=torch.float64) / sum(weights)
        expected = (line[:, None] * line).float()
        torch.testing.assert_close(blurred[0, 10:23, 10:23], expected, atol=1e-7, rtol=1e-5)


def test_colours_are_those_of_the_transforms_one_after_the_other():
    config = AugmentConfig(jitter=1.0, grayscale=0.3)
    # Near middle grey nothing is clamped on the way.
    values = torch.rand(64, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 40 + 70
    draws = draws_of(64)
    changed = colours(values, draws, config)
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    to_yiq = torch.tensor(
        [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]],
        dtype=torch.float64,
    )
    for row in range(64):
        factor = {
            name: 1 + (2 * float(draws[name][row]) - 1) * getattr(config, name)
            for name in ("brightness", "contrast", "saturation")
        }
        x = values[row].double() * factor["brightness"]
        mean = torch.einsum("c,chw->hw", luma, x).mean()
        x = mean + (x - mean) * factor["contrast"]
        grey = torch.einsum("c,chw->hw", luma, x)
        x = grey + (x - grey) * factor["saturation"]
        y, i, q = torch.einsum("dc,chw->dhw", to_yiq, x)
        angle = (2 * float(draws["hue"][row]) - 1) * config.hue * 2 * math.pi
        turned = torch.stack(
            [
                y,
                math.cos(angle) * i - math.sin(angle) * q,
                math.sin(angle) * i + math.cos(angle) * q,
            ]
        )
        x = torch.einsum("cd,dhw->chw", torch.linalg.inv(to_yiq), turned)
        if draws["grayscale"][row] < config.grayscale:
            x = torch.einsum("c,chw->hw", luma, x).expand(3, -1, -1)
        torch.testing.assert_close(changed[row].double(), x, atol=1e-3, rtol=0)


def test_jitter_leaves_what_is_grey_grey_and_bounds_factors():
    grey = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    still = AugmentConfig(brightness=0.0, contrast=0.0)
    torch.testing.assert_close(
        colours(grey * 255, draws_of(50), still), grey * 255, atol=0.2, rtol=0
    )
    dark = torch.full((2000, 3, 2, 2), 100.0)
    config = AugmentConfig(
        contrast=0.0, saturation=0.0, hue=0.0, brightness=0.4, jitter=1.0, grayscale=0.0
    )
    factors = colours(dark, draws_of(2000), config)[:, 0, 0, 0].double() / 100
    uniform = scipy.stats.uniform(0.6, 0.8)
    assert scipy.stats.kstest(factors.numpy(), uniform.cdf).pvalue > 1e-3


def test_a_crop_depends_on_its_own_image_alone():
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    arguments = (AugmentConfig(), Stream(0, "augmentation"), 4)
    identifiers, epochs = torch.arange(8) * 1_000_003, torch.arange(8) % 2
    whole = augment(images, torch.ones(8), identifiers, epochs, *arguments)
    for part in (slice(0, 4), slice(4, 8), slice(5, 6)):
        alone = augment(
            images[part], torch.ones(8)[part], identifiers[part], epochs[part], *arguments
        )
        assert torch.equal(alone.digest, whole.digest[part])
        for view in range(2):
            rows = whole.global_crops.unflatten(0, (2, 8))[view, part]
            assert torch.equal(alone.global_crops.unflatten(0, (2, -1))[view], rows)


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
