"""Effective rank against its closed forms and singular values; cosines before a block."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from tests.trainers.globality.observed import layout, part, random_layer
from trainers.globality.geometry import (
    DESCRIPTIONS,
    IMAGES,
    Geometry,
    effective_rank,
    principal_components,
)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_equal_singular_values_have_their_number_as_rank():
    turn = torch.linalg.qr(normal(0, 9, 9)).Q
    for rank in (1, 4, 9):
        features = 3 * turn[:, :rank] @ torch.linalg.qr(normal(1, 12, 12)).Q[:rank]
        assert float(effective_rank(features[None])) == pytest.approx(rank, rel=1e-4)


@pytest.mark.parametrize("shape", [(7, 20), (20, 7)])
def test_it_is_the_exponential_of_the_entropy_of_singular_values(shape):
    features = normal(2, 3, *shape)
    for one, found in zip(features, effective_rank(features), strict=True):
        values = torch.linalg.svdvals(one.double())
        shares = (values / values.sum()).tolist()
        expected = math.exp(-sum(share * math.log(share) for share in shares))
        assert float(found) == pytest.approx(expected, rel=1e-6)


def test_nothing_has_no_rank():
    assert effective_rank(torch.zeros(1, 4, 3)).isnan().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_has_no_rank_and_no_components(value):
    features = normal(4, 3, 5, 4)
    broken = features.clone()
    broken[1, 2, 0] = value
    found = effective_rank(broken)
    assert found[1].isnan()
    torch.testing.assert_close(found[[0, 2]], effective_rank(features)[[0, 2]])
    assert (principal_components(broken) == 0.5).all()


def test_cosines_are_those_of_what_the_block_before_gave():
    tokens = layout((2, 3), registers=1)
    layers = [random_layer(seed, 4, 2, tokens.count, number=seed) for seed in (1, 2, 3)]
    geometry = Geometry(tokens)
    for layer in layers:
        geometry(layer)
    found = geometry.total.means()
    assert ("geometry", "cls", "patch_cosine", 1) not in found
    for number in (2, 3):
        given = layers[number - 2].tokens
        cosine = torch.cosine_similarity(given[:, 0], given[:, 2:].mean(1), dim=-1)
        mine = found["geometry", "cls", "patch_cosine", number]
        assert mine == pytest.approx([float(cosine.mean())], rel=1e-5)
        rank = effective_rank(layers[number - 1].tokens[:, 2:]).mean()
        assert found["geometry", "patch", "effective_rank", number] == pytest.approx([float(rank)])


def test_batches_change_nothing_and_rank_is_of_the_first_images():
    tokens = layout((2, 2))
    layers = [random_layer(seed, IMAGES + 4, 1, tokens.count, number=seed) for seed in (1, 2)]
    whole, parts = Geometry(tokens), Geometry(tokens)
    for layer in layers:
        whole(layer)
    for images in (slice(0, 10), slice(10, None)):
        for layer in layers:
            parts(part(layer, images))
    assert parts.total.metrics((2,)) == pytest.approx(whole.total.metrics((2,)))
    assert whole.total.values["geometry", "patch", "effective_rank", 1][0].tolist() == [IMAGES]
    assert whole.total.values["geometry", "cls", "patch_cosine", 2][0].tolist() == [IMAGES + 4]


def test_without_cls_there_is_no_cosine():
    tokens = layout((2, 2), has_cls=False)
    geometry = Geometry(tokens)
    for number in (1, 2):
        geometry(random_layer(number, 2, 1, tokens.count, number=number))
    assert {name for _, name, _, _ in geometry.total.values} == {"patch"}


def test_every_name_is_described():
    tokens = layout((2, 2))
    geometry = Geometry(tokens)
    for number in (1, 2):
        geometry(random_layer(number, 2, 1, tokens.count, number=number))
    found = geometry.total.metrics((2,))
    assert {name for name in found if name.count("/") == 2 and name.startswith("geometry/")} == (
        DESCRIPTIONS.keys()
    )


def test_components_are_those_of_a_principal_component_analysis():
    features = normal(3, 4, 9, 6) * torch.tensor([5.0, 3.0, 2.0, 0.1, 0.1, 0.1])
    found = principal_components(features)
    assert found.shape == (4, 3, 9)
    theirs = PCA(3).fit_transform(features.flatten(0, 1).double().numpy())
    for number in range(3):
        mine = found[:, number].flatten().double().numpy()
        inside = (mine > 0) & (mine < 1)
        # Up to sign and scale, and but for what is cut off at both ends.
        assert inside.sum() >= 0.9 * len(mine)
        correlation = np.corrcoef(mine[inside], theirs[inside, number])[0, 1]
        assert abs(correlation) == pytest.approx(1, abs=1e-6)


def test_tokens_on_a_line_have_one_component():
    line = torch.linspace(0, 1, 10).view(2, 5, 1) * torch.tensor([1.0, -2.0, 0.5])
    found = principal_components(line)
    assert (found[:, 1:] == 0.5).all()
    # The largest loading, the second, is positive: it falls along the line.
    assert (found[:, 0].flatten().diff() < 0).sum() >= 7
    assert found[0, 0, 0] == 1
    assert found[1, 0, 4] == 0
