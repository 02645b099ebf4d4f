"""Boxes and how they are resampled: as Pillow does it, and the same bits everywhere."""

import math

import numpy as np
import pytest
import scipy.stats
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_image
from torch.nn import functional

from tests.contracts.pretend_device import DEVICE, pretending
from tests.trainers.data.drawn import draws_of
from trainers.data import cut as data_cut
from trainers.data.augment import draw, evaluation_crops
from trainers.data.cut import crop_boxes, cut, cut_by_products, resample, whole_square
from trainers.randomness.streams import Stream

NO_FLIP = torch.tensor([False])
PHOTOGRAPHS = {
    "china": lambda: load_sample_image("china.jpg"),
    "flower": lambda: load_sample_image("flower.jpg"),
    "astronaut": skimage.data.astronaut,
    "chelsea": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
    "rocket": skimage.data.rocket,
}
"""Each at full size, uint8 [H, W, 3]."""


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


def decoded(pixels):
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def gradient(crops):
    """Mean absolute difference of neighbouring pixels."""
    values = crops.double()
    return (values.diff(dim=2).abs().mean() + values.diff(dim=3).abs().mean()).item()


def pillow_crops(pixels, boxes, size):
    """What torchvision's RandomResizedCrop makes of these boxes, with Pillow."""
    sides = torch.tensor(pixels.shape[:2])
    starts, ends = boxes[:, :2] * sides, (boxes[:, :2] + boxes[:, 2:]) * sides
    picture, crops = Image.fromarray(pixels), []
    for place in torch.cat([starts.flip(1), ends.flip(1)], dim=1).round().int().tolist():
        piece = picture.crop(tuple(place))
        # Rows first, as Pillow always did; lately it begins with the columns of tall pictures.
        rows = piece.resize((size, piece.height), Image.Resampling.BICUBIC)
        crops.append(decoded(rows.resize((size, size), Image.Resampling.BICUBIC)))
    return torch.stack(crops)


@pytest.mark.parametrize(("scale", "size"), [((0.4, 1.0), 224), ((0.05, 0.4), 96)])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_crops_of_photographs_are_those_of_the_published_pipeline(name, scale, size):
    pixels = PHOTOGRAPHS[name]()
    aspect = torch.full((8,), pixels.shape[1] / pixels.shape[0])
    boxes = crop_boxes(draws_of(8), aspect, scale, (0.75, 4 / 3))
    theirs = pillow_crops(pixels, boxes, size)
    ours = cut([decoded(pixels)] * 8, boxes, size, NO_FLIP.expand(8))
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert 0.97 <= gradient(ours) / gradient(theirs) <= 1.03
    square = functional.interpolate(
        decoded(pixels)[None], (256, 256), mode="bilinear", antialias=True
    )
    squeezed = cut(square.expand(8, -1, -1, -1), boxes, size, NO_FLIP.expand(8))
    assert gradient(squeezed) / gradient(theirs) < 0.9


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_products_give_the_bits_of_the_integer_kernel(kind):
    generator = torch.Generator().manual_seed(0)
    for number, (height, width, size) in enumerate(
        [(1, 1, 4), (3, 200, 16), (150, 100, 33), (64, 64, 64), (90, 120, 96), (300, 40, 8)]
    ):
        pair = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=generator)
        images = list((pair // 128 * 255 if number % 2 else pair).permute(0, 3, 1, 2))
        tops, lefts = ((0, 0, side // 2, side // 3) for side in (height, width))
        places = [
            (top, height - (row == 1), left, width - (row == 1) * (width > 9))
            for row, (top, left) in enumerate(zip(tops, lefts, strict=True))
            if top < height - 1 or row != 1
        ]
        places = (places * 2)[:4]
        places[0] = (0, height, 0, width)
        flip = torch.tensor([False, True, True, False])
        ours = cut_by_products(images, places, size, flip, kind)
        for row, (top, bottom, left, right) in enumerate(places):
            piece = images[row % 2][None, :, top:bottom, left:right]
            theirs = functional.interpolate(piece, (size, size), mode=kind, antialias=True)[0]
            assert torch.equal(ours[row], theirs.flip(2) if flip[row] else theirs)


def test_boxes_of_all_images_are_planned_at_once(monkeypatch):
    images = [torch.zeros(3, 20 + row, 30, dtype=torch.uint8) for row in range(4)]
    places = [(0, 10 + row, 0, 20) for row in range(8)]
    planned, plan = [], data_cut.taps
    monkeypatch.setattr(data_cut, "taps", lambda *given: planned.append(given) or plan(*given))
    cut_by_products(images, places, 16, torch.zeros(8, dtype=torch.bool), "bicubic")
    assert len(planned) == 1


@pytest.mark.parametrize("together", [1, 9_000, 2**25])
def test_boxes_cut_together_have_the_bits_of_each_alone(together, monkeypatch):
    monkeypatch.setattr(data_cut, "_TOGETHER", together)
    generator = torch.Generator().manual_seed(0)
    sides = [(40, 60), (7, 90), (64, 64), (1, 1), (33, 20)]
    images = [
        torch.randint(0, 256, (*side, 3), dtype=torch.uint8, generator=generator).permute(2, 0, 1)
        for side in sides
    ]
    boxes = crop_boxes(draws_of(4 * len(sides)), torch.ones(20), (0.05, 1.0), (0.5, 2.0))
    places = data_cut._whole_pixels(images, boxes)
    flip = torch.rand(20, generator=generator) < 0.5
    ours = cut_by_products(images, places, 24, flip, "bicubic")
    assert torch.equal(ours, data_cut._cut_by_kernel(images, places, 24, flip, "bicubic"))


def test_many_images_are_cut_in_as_many_operations_as_few():
    def operations(count):
        places = [(0, 10, 0, 20)] * (2 * count)
        with pretending() as counts:
            there = [*torch.zeros(count, 3, 40, 50, dtype=torch.uint8).to(DEVICE)]
            waits, before = counts.waits.copy(), counts.launches.total()
            cut_by_products(there, places, 16, torch.zeros(2 * count, dtype=torch.bool), "bicubic")
        assert counts.waits == waits
        return counts.launches.total() - before

    assert operations(2) == operations(32)


def test_more_pixels_than_a_float_can_sum_still_give_the_bits_of_the_kernel():
    image = torch.randint(
        0, 256, (3, 6000, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    ours = cut_by_products([image], [(0, 6000, 0, 9)], 8, NO_FLIP, "bicubic")
    theirs = functional.interpolate(image[None], (8, 8), mode="bicubic", antialias=True)
    assert torch.equal(ours, theirs)


def test_evaluation_takes_the_centred_square_of_an_image_as_it_is():
    pixels = PHOTOGRAPHS["chelsea"]()  # 300 × 451
    pixels = pixels[:, :450]
    crops = evaluation_crops([decoded(pixels)], torch.tensor([1.5]), 224)
    square = Image.fromarray(pixels[:, 75:375]).resize((224, 224), Image.Resampling.BICUBIC)
    assert (crops[0].int() - decoded(square).int()).abs().max() <= 1
