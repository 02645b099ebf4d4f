"""The position probe on tokens of which it is known what they tell of their place."""

import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from torch import Tensor

from trainers.evaluation.position_probe import PENALTY, position_r2
from trainers.model.positions import patch_coordinates

torch.set_num_threads(1)

GRID = (5, 3)
PLACES = patch_coordinates(GRID, torch.device("cpu"))


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def r2(tokens: Tensor) -> float:
    return position_r2(tokens, GRID)["position_probe/r2"]


def test_tokens_that_are_the_position_tell_all_of_it():
    assert r2(PLACES.expand(10, -1, -1)) == pytest.approx(1, abs=1e-5)


def test_a_position_among_much_else_is_still_found():
    tokens = noise(0, 200, 15, 24) + 3.0
    tokens[..., :2] = PLACES
    assert r2(tokens @ noise(1, 24, 24)) > 0.95


def test_tokens_independent_of_the_position_tell_nothing():
    assert -0.1 < r2(noise(2, 400, 15, 8)) <= 0.0


def test_one_coordinate_alone_is_its_share_of_the_variance():
    share = float(PLACES[:, 0].square().sum() / PLACES.square().sum())
    assert r2(PLACES[:, :1].expand(10, -1, -1)) == pytest.approx(share, abs=1e-5)


def test_constant_tokens_tell_nothing():
    assert r2(torch.full((6, 15, 4), 2.5)) == pytest.approx(0, abs=1e-12)
    assert r2(torch.zeros(6, 15, 4)) == 0


def test_turning_and_scaling_the_features_changes_nothing():
    tokens = noise(3, 40, 15, 6)
    tokens[..., :2] += 1.5 * PLACES
    turn = torch.linalg.qr(noise(4, 6, 6)).Q
    plain = r2(tokens)
    assert 0.1 < plain < 0.9
    for other in (tokens @ turn, 1e3 * tokens, 1e-3 * tokens @ turn, tokens + 7):
        assert r2(other) == pytest.approx(plain, abs=1e-5)


def test_the_value_is_that_of_scikit_learn():
    tokens = noise(5, 30, 15, 6)
    tokens[..., :2] += PLACES
    known, asked = tokens[:15].flatten(0, 1).double(), tokens[15:].flatten(0, 1).double()
    variance = known.var(0, correction=0).mean()
    ridge = Ridge(alpha=float(PENALTY * variance * len(known)))
    ridge.fit(known.numpy(), PLACES.repeat(15, 1).numpy())
    expected = r2_score(
        PLACES.repeat(15, 1), ridge.predict(asked.numpy()), multioutput="variance_weighted"
    )
    assert r2(tokens) == pytest.approx(expected, abs=1e-6)


def test_what_tells_places_apart_in_one_image_only_is_not_held_out_knowledge():
    # Each image marks its patches in its own directions: a split by patch would find them again.
    images, width = 8, 8 * 15
    tokens = torch.eye(width).view(images, 15, width)
    assert r2(tokens) <= 0.01


def test_a_grid_of_one_patch_has_no_places_to_tell_apart():
    assert position_r2(noise(6, 4, 1, 5), (1, 1)) == {}


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_refused(count: int):
    with pytest.raises(ValueError, match=f"two images or more, got {count}"):
        position_r2(torch.zeros(count, 15, 4), GRID)
