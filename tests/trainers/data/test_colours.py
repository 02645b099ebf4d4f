"""Colours of crops, against the transforms as they are defined."""

import math

import scipy.stats
import torch

from tests.trainers.data.drawn import draws_of
from trainers.config import AugmentConfig
from trainers.data.colours import Changes, blur, blur_weights, colour_maps, colours, recolour


def weights_of(*sigmas):
    return blur_weights(torch.tensor(sigmas), torch.ones(len(sigmas), dtype=torch.bool))[1]


def test_blur_keeps_constants_and_follows_the_gaussian():
    flat = torch.full((1, 3, 9, 9), 0.3)
    torch.testing.assert_close(blur(flat, weights_of(1.5)), flat)
    points = torch.zeros(2, 3, 33, 33)
    points[..., 16, 16] = 1
    sigmas = (2.0, 1.8)
    for blurred, sigma in zip(blur(points, weights_of(*sigmas)), sigmas, strict=True):
        weights = [math.exp(-0.5 * (d / sigma) ** 2) for d in range(-6, 7)]
        line = torch.tensor(weights, dtype=torch.float64) / sum(weights)
        expected = (line[:, None] * line).float()
        torch.testing.assert_close(blurred[0, 10:23, 10:23], expected, atol=1e-7, rtol=1e-5)


def test_colours_are_those_of_the_transforms_one_after_the_other():
    config = AugmentConfig(jitter=1.0, grayscale=0.3)
    # Near middle grey nothing is clamped on the way.
    values = torch.rand(64, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 40 + 70
    values = values.round()
    draws = draws_of(64)
    changed = colours(values, *colour_maps(draws, config))
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
        colours(grey * 255, *colour_maps(draws_of(50), still)), grey * 255, atol=0.2, rtol=0
    )
    dark = torch.full((2000, 3, 2, 2), 100.0)
    config = AugmentConfig(
        contrast=0.0, saturation=0.0, hue=0.0, brightness=0.4, jitter=1.0, grayscale=0.0
    )
    factors = colours(dark, *colour_maps(draws_of(2000), config))[:, 0, 0, 0].double() / 100
    uniform = scipy.stats.uniform(0.6, 0.8)
    assert scipy.stats.kstest(factors.numpy(), uniform.cdf).pvalue > 1e-3


def test_crops_of_different_blur_are_blurred_as_alone():
    crops = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    sigmas = (0.3, 1.1, 2.0)
    together = blur(crops, weights_of(*sigmas))
    for crop, blurred, sigma in zip(crops, together, sigmas, strict=True):
        assert torch.equal(blur(crop[None], weights_of(sigma))[0], blurred)


def test_the_mean_of_a_crop_is_exact_however_large_it_is():
    crops = torch.full((1, 3, 513, 513), 255.0)
    crops[:, :, 0, 0] = 254
    contrast = (torch.zeros(1, 3, 3), torch.tensor([1.0]))
    found = colours(crops, *contrast)[0, 0, 0, 0].item()
    assert abs(found - (255 - 1 / 513**2)) < 2e-5


def test_what_is_not_chosen_stays_as_it_is():
    crops = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    config = AugmentConfig(jitter=0.0, grayscale=0.0)
    changes = Changes.drawn(draws_of(4), config, [0.0], [0.0])
    assert recolour(crops, changes) is crops
    unlikely = Changes.drawn(draws_of(4), config, [1e-9], [1e-9])
    assert torch.equal(recolour(crops, unlikely), crops)
