"""Functionals of where attention lies, against their equations in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.contracts.pretend_device import DEVICE, pretending
from trainers.globality.functionals import (
    LEAST_MASS,
    ascending,
    content_dependence,
    distance_ratio,
    locality,
    mean_distance,
    median,
    mutual_information,
    nearest_distance_ratio,
    outlier_share,
    patch_distances,
    positional_bias,
    sink_concentration,
)

torch.set_num_threads(1)


def distances(rows: int, columns: int) -> np.ndarray:
    """All distances between patches, one pair at a time."""
    places = [(r, c) for r in range(rows) for c in range(columns)]
    return np.array([[math.dist(one, other) for other in places] for one in places])


def random_maps(seed: int, *shape: int) -> Tensor:
    generator = np.random.default_rng(seed)
    return torch.tensor(generator.dirichlet(np.full(shape[-1], 0.3), size=shape[:-1])).float()


def windows(grid: int, reach: int) -> np.ndarray:
    """Uniform maps on the (2 reach + 1)² window around each query, cut off at the border."""
    x = [(r, c) for r in range(grid) for c in range(grid)]
    near = np.array([[max(abs(a - c), abs(b - d)) <= reach for c, d in x] for a, b in x], float)
    return near / near.sum(1, keepdims=True)


def locality_of(maps: Tensor, grid: tuple[int, int]) -> float:
    """Locality of maps [N, N] that count the query's own patch."""
    places = torch.arange(len(maps))
    apart = patch_distances(grid, places)
    found = locality((maps * apart).sum(), (maps @ apart.mean(0)).sum())
    return float(found)


def information_of(maps: np.ndarray) -> float:
    rows = torch.tensor(maps)
    entropy = torch.special.entr(rows).sum(-1).mean()
    return float(mutual_information(rows.mean(0), entropy, len(rows)))


# Distances


@pytest.mark.parametrize("grid", [(14, 14), (3, 5), (1, 4)])
def test_distances_are_euclidean_in_patches(grid):
    found = patch_distances(grid, torch.arange(math.prod(grid)))
    np.testing.assert_allclose(found.numpy(), distances(*grid), atol=1e-5)


def test_uniform_distances_on_the_grid_of_a_vit_are_the_published_ones():
    apart = distances(14, 14)
    uniform = torch.full((196, 196), 1 / 196)
    found = mean_distance(uniform, (14, 14), torch.arange(196))
    np.testing.assert_allclose(found.numpy(), apart.mean(1), rtol=1e-5)
    assert float(found[0]) == pytest.approx(10.0644, abs=1e-4)
    assert float(found.min()) == pytest.approx(5.3762, abs=1e-4)
    assert float(found.mean()) == pytest.approx(7.28076, abs=1e-5)
    assert 16 * float(found.mean()) == pytest.approx(116.49, abs=0.01)


def test_the_distance_ratio_of_uniform_attention_to_the_others_is_1_for_every_query():
    maps = (torch.ones(196, 196) - torch.eye(196)) / 195
    places = torch.arange(196)
    found = distance_ratio(mean_distance(maps, (14, 14), places), (14, 14), places)
    torch.testing.assert_close(found, torch.ones(196))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (5 * 14 + 5, (4 + 4 * math.sqrt(2)) / 9),
        (5, (3 + 2 * math.sqrt(2)) / 6),
        (0, (2 + math.sqrt(2)) / 4),
    ],
)
def test_the_mean_distance_in_a_3_by_3_window_is_its_closed_form(query, expected):
    maps = torch.tensor(windows(14, 1)).float()[[query]]
    assert float(mean_distance(maps, (14, 14), torch.tensor([query]))) == pytest.approx(expected)


def test_the_nearest_distance_ratio_is_the_least_over_all_places():
    maps, apart = random_maps(0, 7, 20), distances(4, 5)
    expected = (maps.double().numpy() @ (apart / apart.mean(1, keepdims=True)).T).min(1)
    for chunk in (1, 6, 100):
        found = nearest_distance_ratio(maps, (4, 5), None, chunk)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_the_nearest_distance_ratio_of_patch_queries_leaves_their_own_patch_out():
    maps, apart = random_maps(1, 20, 20), distances(4, 5)
    maps = maps * (1 - torch.eye(20))
    maps = maps / maps.sum(1, keepdim=True)
    expected = []
    for own, p in enumerate(maps.double().numpy()):
        others = [j for j in range(20) if j != own]
        expected.append(min(p @ apart[v] / apart[v, others].mean() for v in range(20)))
    for chunk in (1, 6, 100):
        found = nearest_distance_ratio(maps, (4, 5), torch.arange(20), chunk)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("grid", [(14, 14), (4, 4), (3, 8), (1, 4)])
def test_the_nearest_distance_ratio_of_uniform_is_1_for_cls_and_for_every_patch(grid):
    count = math.prod(grid)
    others = (torch.ones(count, count) - torch.eye(count)) / (count - 1)
    found = nearest_distance_ratio(others, grid, torch.arange(count))
    torch.testing.assert_close(found, torch.ones(count))
    found = nearest_distance_ratio(torch.full((1, count), 1 / count), grid, None)
    torch.testing.assert_close(found, torch.ones(1))


def test_the_only_other_patch_has_no_nearest_distance_ratio():
    maps = torch.eye(2).flip(0)
    assert nearest_distance_ratio(maps, (1, 2), torch.arange(2)).isnan().all()


def test_a_map_on_one_patch_is_at_no_distance_from_the_nearest():
    assert float(nearest_distance_ratio(torch.eye(12), (3, 4), None).abs().max()) == 0


# Locality


def test_locality_is_1_where_each_query_attends_to_itself():
    assert locality_of(torch.eye(16), (4, 4)) == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(4, 4), (3, 6), (7, 7)]))
def test_locality_of_a_map_that_all_queries_share_is_0(seed, grid):
    shared = random_maps(seed, math.prod(grid)).expand(math.prod(grid), -1)
    assert locality_of(shared, grid) == pytest.approx(0, abs=2e-6)


def test_locality_of_a_3_by_3_window_is_its_closed_form():
    maps, apart = windows(14, 1), distances(14, 14)
    expected = 1 - (maps * apart).sum() / (maps * apart.mean(0)).sum()
    assert expected == pytest.approx(0.856035, abs=1e-6)
    assert locality_of(torch.tensor(maps).float(), (14, 14)) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_locality_does_not_change_under_flips_and_turns(seed):
    maps = random_maps(seed, 16, 16)
    table = maps.view(4, 4, 4, 4)
    for changed in (table.flip(0, 2), table.flip(1, 3), table.rot90(1, (0, 1)).rot90(1, (2, 3))):
        found = locality_of(changed.reshape(16, 16), (4, 4))
        assert found == pytest.approx(locality_of(maps, (4, 4)), abs=1e-5)


def test_locality_of_no_distance_at_all_is_not_a_number():
    assert math.isnan(float(locality(torch.tensor(0.0), torch.tensor(0.0))))


# Positional bias and content dependence


def test_a_fixed_patch_is_all_bias_and_one_that_goes_round_all_content():
    fixed = torch.zeros(16)
    fixed[3] = 1
    assert float(positional_bias(fixed, 16)) == pytest.approx(1)
    assert float(content_dependence(fixed, torch.tensor(0.0), 16)) == 0
    around = torch.full((16,), 1 / 16)
    assert float(positional_bias(around, 16)) == pytest.approx(0, abs=1e-6)
    assert float(content_dependence(around, torch.tensor(0.0), 16)) == pytest.approx(1)


@pytest.mark.parametrize("blocks", [2, 4, 8])
def test_images_that_attend_to_one_of_b_blocks_depend_on_content_by_ln_b(blocks):
    mean_map, inside = torch.full((16,), 1 / 16), math.log(16 / blocks)
    found = content_dependence(mean_map, torch.tensor(inside), 16)
    assert float(found) == pytest.approx(math.log(blocks) / math.log(16))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_bias_and_content_add_up_to_selectivity(seed):
    maps = random_maps(seed, 9, 20).double()
    entropy = torch.special.entr(maps).sum(-1).mean()
    total = positional_bias(maps.mean(0), 20) + content_dependence(maps.mean(0), entropy, 20)
    assert float(total) == pytest.approx(float(1 - entropy / math.log(20)))


@pytest.mark.parametrize(("images", "expected"), [(50, 0.0188), (200, 0.0043)])
def test_few_images_look_biased_by_a_known_amount(images, expected):
    generator = np.random.default_rng(0)
    draws = [generator.dirichlet(np.full(196, 0.1), size=images).mean(0) for _ in range(40)]
    found = positional_bias(torch.tensor(np.array(draws)), 196).mean()
    assert float(found) == pytest.approx(expected, rel=0.1)


# Mutual information


def test_information_of_equal_diagonal_blocks_is_ln_b_over_ln_n():
    assert information_of(np.kron(np.eye(4), np.full((4, 4), 1 / 4))) == pytest.approx(0.5)
    assert information_of(np.eye(16)) == pytest.approx(1)
    assert information_of(np.full((16, 16), 1 / 16)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("grid", "expected"), [(14, 0.60460), (7, 0.49187)])
def test_information_of_a_3_by_3_window_is_its_closed_form(grid, expected):
    assert information_of(windows(grid, 1)) == pytest.approx(expected, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_information_does_not_change_when_queries_or_keys_are_renamed(seed):
    maps = random_maps(seed, 12, 12).double().numpy()
    generator = np.random.default_rng(seed)
    renamed = maps[generator.permutation(12)][:, generator.permutation(12)]
    assert information_of(renamed) == pytest.approx(information_of(maps))


# Sinks


def test_a_sink_is_ln_of_the_most_over_the_median():
    assert float(sink_concentration(torch.ones(9))) == 0
    received = torch.tensor([1.0, 1.0, 1.0, math.e**2, 0.5])
    assert float(sink_concentration(received)) == pytest.approx(2)


def test_one_key_that_takes_everything_is_the_strongest_sink_and_finite():
    received = torch.zeros(50)
    received[17] = 50
    strongest = float(sink_concentration(received))
    assert strongest == pytest.approx(math.log(50 / LEAST_MASS))
    received = torch.full((50,), 2 * LEAST_MASS)
    received[17] = 50 - received[0] * 49
    assert 0 < float(sink_concentration(received)) < strongest


@pytest.mark.parametrize("count", [1, 4, 7])
def test_a_median_from_a_sort_is_the_lower_one_and_not_a_number_where_any_is(count):
    rows = torch.randn(3, 2, count)
    rows[0, 1, count // 2] = torch.nan
    with pretending():
        found = median(rows.to(DEVICE)).cpu()
    torch.testing.assert_close(found, rows.median(-1).values, rtol=0, atol=0, equal_nan=True)


def test_outliers_are_beyond_five_deviations_of_the_median():
    norms = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    # Median 5, median deviation 2: the border is 5 + 5 * 1.4826 * 2 = 19.826.
    assert float(outlier_share(norms)) == 0
    norms[8] = 19.8
    assert float(outlier_share(norms)) == 0
    norms[8] = 19.9
    assert float(outlier_share(norms)) == pytest.approx(1 / 9)


def test_ascending_is_sorted_with_nan_last():
    found = ascending(torch.tensor([[3.0, math.nan, 1.0], [2.0, 0.0, 1.0]]))
    assert found[0, :2].tolist() == [1, 3]
    assert math.isnan(found[0, 2])
    assert found[1].tolist() == [0, 1, 2]
