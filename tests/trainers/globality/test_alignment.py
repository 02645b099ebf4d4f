"""Linear CKA against its definition."""

import math

import numpy as np
import pytest
import torch

from trainers.globality.alignment import Alignment, linear_cka
from trainers.globality.tokens import Tokens
from trainers.model.vit import Layer


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unbiased(one: np.ndarray, other: np.ndarray) -> float:
    """HSIC_1 of Song et al. (2012), eq. 5, written out."""
    n = len(one)
    k, m = one @ one.T, other @ other.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    ones = np.ones(n)
    found = np.trace(k @ m) + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return (found - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))


def test_it_is_the_unbiased_estimate_of_its_definition():
    one, other = normal(0, 30, 5), normal(1, 30, 7)
    other[:, :3] += one[:, :3]
    x, y = ((part - part.mean(0)).double().numpy() for part in (one, other))
    expected = unbiased(x, y) / math.sqrt(unbiased(x, x) * unbiased(y, y))
    assert linear_cka(one, other) == pytest.approx(expected)


def test_turning_and_scaling_change_nothing():
    one = normal(0, 20, 6)
    turn = torch.linalg.qr(normal(1, 6, 6)).Q
    assert linear_cka(one, 3 * one @ turn + 2) == pytest.approx(1)


def test_independent_features_have_about_nothing_in_common_even_in_few_images():
    found = [linear_cka(normal(2 * i, 12, 40), normal(2 * i + 1, 12, 40)) for i in range(200)]
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error


def test_constant_features_have_no_similarity():
    assert math.isnan(linear_cka(torch.ones(9, 3), normal(0, 9, 3)))


def test_three_images_are_too_few():
    with pytest.raises(AssertionError, match="four images"):
        linear_cka(normal(0, 3, 2), normal(1, 3, 2))


def layer(tokens: torch.Tensor, number: int = 1) -> Layer:
    nothing = torch.empty(0)
    return Layer(
        number=number,
        queries=nothing,
        keys=nothing,
        values=nothing,
        projection=nothing,
        normalised=tokens,
        tokens=tokens,
    )


def test_a_cls_that_is_the_mean_patch_is_alike_and_batches_do_not_matter():
    patches = normal(3, 10, 4, 8)
    alike = torch.cat([patches.mean(1, keepdim=True), patches], dim=1)
    other = torch.cat([normal(4, 10, 1, 8), patches], dim=1)
    layout = Tokens(
        grid=(2, 2), has_cls=True, registers=0, patch_queries=torch.arange(4), fixed_patch=None
    )
    whole, parts = Alignment(layout), Alignment(layout)
    for number, tokens in ((1, other), (2, alike)):
        whole(layer(tokens, number))
        for part in tokens.split(3):
            parts(layer(part, number))
    found = whole.metrics()
    assert found == pytest.approx(parts.metrics())
    assert found["alignment/cls_patch"] == found["alignment/cls_patch@2"] == pytest.approx(1)
    assert abs(found["alignment/cls_patch@1"]) < 0.5


def test_without_cls_nothing_is_compared():
    layout = Tokens(
        grid=(2, 2), has_cls=False, registers=0, patch_queries=torch.arange(4), fixed_patch=None
    )
    none = Alignment(layout)
    none(layer(normal(0, 9, 4, 3)))
    assert none.metrics() == {}
