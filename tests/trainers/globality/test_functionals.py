"""Functionals of attention maps against their closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.globality.functionals import (
    LEAST_MASS,
    beyond_uniform,
    conditional,
    coverage,
    entropy,
    gyration,
)
from trainers.grid import Grid

torch.set_num_threads(1)

SHARES = (0.05, 0.3, 0.5, 0.6, 0.9, 0.99, 1.0)
GRIDS = ((14, 14), (7, 7), (3, 8), (5, 1), (2, 2))

few = settings(deadline=None, max_examples=25)
grids = st.tuples(st.integers(1, 6), st.integers(1, 6)).filter(lambda grid: math.prod(grid) > 1)
seeds = st.integers(0, 2**20)


def window(grid: Grid, top: int, left: int, height: int, width: int) -> Tensor:
    """Uniform on a window of the grid, 0 elsewhere, [1, N]."""
    image = torch.zeros(grid)
    image[top : top + height, left : left + width] = 1 / (height * width)
    assert image.count_nonzero() == height * width
    return image.flatten()[None]


def random_maps(seed: int, grid: Grid, queries: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(queries, math.prod(grid), generator=generator)
    return logits.softmax(-1)


def as_image(maps: Tensor, grid: Grid) -> Tensor:
    return maps.unflatten(-1, grid)


def patches_of(grid: Grid) -> Tensor:
    return torch.arange(math.prod(grid))


def uniform_excluding_self(grid: Grid) -> tuple[Tensor, Tensor]:
    """The maps of every patch query under uniform attention over all tokens."""
    places = patches_of(grid)
    tokens = len(places) + 1
    return conditional(torch.full((len(places), tokens), 1 / tokens), places)


def close(found: Tensor, expected: float, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(
        found, torch.full_like(found, expected), rtol=0, atol=tolerance, check_dtype=False
    )


# Gyration


@pytest.mark.parametrize(("side", "decimal"), [(14, 0.20255), (7, 0.40825)])
def test_gyration_of_a_3x3_window_is_the_same_wherever_it_lies(side: int, decimal: float):
    expected = math.sqrt((3**2 - 1) / (side**2 - 1))
    assert expected == pytest.approx(decimal, abs=6e-6)
    places = [(top, left) for top in range(side - 2) for left in range(side - 2)]
    maps = torch.cat([window((side, side), top, left, 3, 3) for top, left in places])
    close(gyration(maps, (side, side), None), expected)


@pytest.mark.parametrize("width", range(1, 15))
def test_gyration_of_a_square_window_is_its_spread_over_that_of_the_grid(width: int):
    maps = window((14, 14), 14 - width, 0, width, width)
    close(gyration(maps, (14, 14), None), math.sqrt((width**2 - 1) / (14**2 - 1)))


def test_gyration_of_two_opposite_corners_is_the_largest_there_is():
    side = 14
    maps = torch.zeros(1, side * side)
    maps[0, [0, -1]] = 0.5
    expected = math.sqrt(2 * (side - 1) ** 2 / 4 / ((side**2 - 1) / 6))
    assert expected == pytest.approx(math.sqrt(3 * (side - 1) / (side + 1)))
    assert expected == pytest.approx(1.61245, abs=6e-6)
    close(gyration(maps, (side, side), None), expected)


def test_gyration_of_the_left_half():
    expected = math.sqrt(((14**2 - 1) / 12 + (7**2 - 1) / 12) / ((14**2 - 1) / 6))
    assert expected == pytest.approx(0.78935, abs=6e-6)
    close(gyration(window((14, 14), 0, 0, 14, 7), (14, 14), None), expected)


def test_gyration_on_a_rectangular_grid_measures_rows_and_columns_apart():
    grid = (4, 9)
    variance = (4**2 - 1) / 12 + (9**2 - 1) / 12
    one_row = window(grid, 2, 0, 1, 9)
    one_column = window(grid, 0, 5, 4, 1)
    close(gyration(one_row, grid, None), math.sqrt((9**2 - 1) / 12 / variance))
    close(gyration(one_column, grid, None), math.sqrt((4**2 - 1) / 12 / variance))


@pytest.mark.parametrize("grid", GRIDS)
def test_gyration_of_a_single_patch_is_0(grid: Grid):
    maps = torch.eye(math.prod(grid))
    assert torch.equal(gyration(maps, grid, None), torch.zeros(len(maps)))
    others = maps.roll(1, 0)
    found = gyration(others, grid, patches_of(grid))
    assert torch.equal(found, torch.zeros(len(maps)))


@few
@given(grids, seeds)
def test_gyration_excluding_self_is_over_the_spread_of_the_other_patches(grid: Grid, seed: int):
    count = math.prod(grid)
    places = patches_of(grid)
    maps, _ = conditional(random_maps(seed, (count + 1, 1), count), places)
    x = torch.tensor([(i // grid[1], i % grid[1]) for i in range(count)]).double()
    expected = []
    for place in range(count):
        others = torch.cat([x[:place], x[place + 1 :]])
        baseline = ((others - others.mean(0)) ** 2).sum(1).mean()
        p = maps[place].double()
        spread = (p * ((x - p @ x) ** 2).sum(1)).sum()
        expected.append(float((spread / baseline).sqrt()) if baseline > 1e-9 else math.nan)
    found = gyration(maps, grid, places).double()
    torch.testing.assert_close(
        found, torch.tensor(expected).double(), rtol=1e-3, atol=1e-3, equal_nan=True
    )


# Entropy and coverage


def test_entropy_of_a_3x3_window_and_of_a_half():
    for maps, count, decimal in (
        (window((14, 14), 6, 0, 3, 3), 9, 0.41629),
        (window((14, 14), 0, 0, 14, 7), 98, 0.86868),
    ):
        expected = math.log(count) / math.log(196)
        assert expected == pytest.approx(decimal, abs=6e-6)
        close(entropy(maps, None), expected)


@few
@given(grids, seeds, st.data())
def test_k_equal_weights_have_entropy_log_k_over_log_n_and_coverage_k_over_n_for_every_share(
    grid: Grid, seed: int, data: st.DataObject
):
    count = math.prod(grid)
    k = data.draw(st.integers(1, count))
    generator = torch.Generator().manual_seed(seed)
    maps = torch.zeros(1, count)
    maps[0, torch.randperm(count, generator=generator)[:k]] = 1 / k
    close(entropy(maps, None), math.log(k) / math.log(count))
    for found in coverage(maps, SHARES, None):
        close(found, k / count)


def test_coverage_of_a_3x3_window_and_of_a_half():
    for found in coverage(window((14, 14), 0, 11, 3, 3), SHARES, None):
        close(found, 9 / 196)
    for found in coverage(window((14, 14), 0, 0, 14, 7), SHARES, None):
        close(found, 1 / 2)


def test_coverage_interpolates_within_the_weight_that_reaches_the_share():
    maps = torch.tensor([[0.1, 0.5, 0.0, 0.4]])
    # 0.6 is reached by 0.5 and a quarter of 0.4; 0.95 by 0.5, 0.4 and half of 0.1.
    for share, number in ((0.25, 0.5), (0.5, 1.0), (0.6, 1.25), (0.95, 2.5)):
        (found,) = coverage(maps, (share,), None)
        close(found, number / (share * 4))


def test_k_equal_weights_beside_an_excluded_patch_count_the_others_only():
    count = 12
    maps = torch.zeros(1, count)
    maps[0, [1, 4, 5]] = 1 / 3
    excluded = torch.tensor([7])
    close(entropy(maps, excluded), math.log(3) / math.log(count - 1))
    for found in coverage(maps, SHARES, excluded):
        close(found, 3 / (count - 1))


# Uniform, single patch, undefined


@pytest.mark.parametrize("grid", GRIDS)
def test_uniform_is_1_for_every_patch_query_corners_included(grid: Grid):
    maps, mass = uniform_excluding_self(grid)
    places = patches_of(grid)
    count = len(places)
    close(mass, (count - 1) / (count + 1))
    close(gyration(maps, grid, places), 1)
    close(entropy(maps, places), 1)
    for found in coverage(maps, SHARES, places):
        close(found, 1)


@pytest.mark.parametrize("grid", GRIDS)
def test_uniform_is_1_for_cls_queries(grid: Grid):
    tokens = math.prod(grid) + 1
    maps, mass = conditional(torch.full((1, tokens), 1 / tokens), None)
    close(mass, (tokens - 1) / tokens)
    close(gyration(maps, grid, None), 1)
    close(entropy(maps, None), 1)
    for found in coverage(maps, SHARES, None):
        close(found, 1)


def test_a_single_patch_has_entropy_0_and_coverage_1_over_n():
    maps = torch.eye(20)
    close(entropy(maps, None), 0)
    for found in coverage(maps, SHARES, None):
        close(found, 1 / 20)


@few
@given(grids, seeds)
def test_values_lie_in_their_ranges(grid: Grid, seed: int):
    maps = random_maps(seed, grid)
    count = math.prod(grid)
    spread, evenness = gyration(maps, grid, None), entropy(maps, None)
    assert ((spread >= 0) & (spread <= math.sqrt(3) + 1e-5)).all()
    assert ((evenness >= 0) & (evenness <= 1 + 1e-5)).all()
    for found in coverage(maps, SHARES, None):
        assert ((found >= 1 / count - 1e-4) & (found <= 1 + 1e-4)).all()


def test_a_map_of_less_than_the_least_mass_on_patches_is_nan():
    grid = (2, 3)
    attention = torch.zeros(3, 7)
    attention[:, 0] = 1
    attention[1, 1:] = 0.5 * LEAST_MASS / 6
    attention[2, 1:] = 2 * LEAST_MASS / 6
    maps, mass = conditional(attention, None)
    torch.testing.assert_close(mass, torch.tensor([0.0, 0.5e-6, 2e-6]))
    for values in (
        gyration(maps, grid, None),
        entropy(maps, None),
        *coverage(maps, SHARES, None),
    ):
        assert values.isnan().tolist() == [True, True, False]
        close(values[2:], 1)


def test_attention_to_oneself_alone_leaves_no_map():
    places = patches_of((2, 3))
    attention = torch.nn.functional.pad(torch.eye(6), (1, 0))
    maps, mass = conditional(attention, places)
    assert maps.isnan().all()
    assert torch.equal(mass, torch.zeros(6))


def test_a_conditional_map_sums_to_1_without_cls_and_without_oneself():
    attention = random_maps(0, (3, 3), 5)  # 9 tokens, 8 patches
    places = torch.tensor([0, 3, 7, 3, 1])
    maps, mass = conditional(attention, places)
    own = attention[torch.arange(5), places + 1]
    torch.testing.assert_close(mass, 1 - attention[:, 0] - own)
    close(maps.sum(-1), 1)
    assert torch.equal(maps[torch.arange(5), places], torch.zeros(5))


def test_leading_axes_are_batch_axes():
    grid, places = (2, 4), torch.tensor([0, 5, 7])
    attention = random_maps(1, (3, 3), 2 * 3 * 3).view(2, 3, 3, 9)
    maps, mass = conditional(attention, places)
    whole = [mass, gyration(maps, grid, places), entropy(maps, places)]
    whole += coverage(maps, SHARES, places)
    for i in range(2):
        for j in range(3):
            one, one_mass = conditional(attention[i, j], places)
            alone = [one_mass, gyration(one, grid, places), entropy(one, places)]
            alone += coverage(one, SHARES, places)
            for all_values, values in zip(whole, alone, strict=True):
                torch.testing.assert_close(all_values[i, j], values)


@pytest.mark.parametrize("excluded", [None, torch.tensor([0])])
def test_a_grid_of_one_patch_has_no_spread_and_no_entropy(excluded: Tensor | None):
    maps, _ = conditional(torch.tensor([[0.3, 0.7]]), excluded)
    assert gyration(maps, (1, 1), excluded).isnan().all()
    assert entropy(maps, excluded).isnan().all()
    (found,) = coverage(maps, (0.6,), excluded)
    assert found.isnan().all() if excluded is not None else found.tolist() == [1.0]


def test_the_only_other_patch_has_no_spread():
    places = torch.arange(2)
    maps, _ = conditional(torch.full((2, 3), 1 / 3), places)
    assert gyration(maps, (1, 2), places).isnan().all()
    assert entropy(maps, places).isnan().all()
    (found,) = coverage(maps, (0.6,), places)
    close(found, 1)


# Mass beyond uniform


@pytest.mark.parametrize("tokens", [2, 5, 197])
def test_mass_beyond_uniform_is_0_for_uniform_and_1_for_all(tokens: int):
    for counted in (1, tokens - 1):
        none, uniform, everything = beyond_uniform(
            torch.tensor([0, counted / tokens, 1], dtype=torch.float64), tokens, counted
        ).tolist()
        assert none == pytest.approx(-counted / (tokens - counted))
        assert uniform == pytest.approx(0, abs=1e-12)
        assert everything == pytest.approx(1)


def test_half_to_oneself_and_the_rest_uniform():
    tokens = 197
    found = beyond_uniform(torch.tensor(0.5), tokens)
    close(found, (0.5 - 1 / tokens) / (1 - 1 / tokens), 1e-6)


# Invariances


@few
@given(grids, seeds)
def test_gyration_keeps_under_flips(grid: Grid, seed: int):
    maps = random_maps(seed, grid)
    for axis in (-2, -1):
        flipped = as_image(maps, grid).flip(axis).flatten(-2)
        torch.testing.assert_close(
            gyration(flipped, grid, None), gyration(maps, grid, None), rtol=1e-4, atol=1e-4
        )


@few
@given(grids, seeds, st.integers(1, 3))
def test_gyration_keeps_under_quarter_turns(grid: Grid, seed: int, turns: int):
    maps = random_maps(seed, grid)
    turned = as_image(maps, grid).rot90(turns, (-2, -1))
    torch.testing.assert_close(
        gyration(turned.flatten(-2), (turned.shape[-2], turned.shape[-1]), None),
        gyration(maps, grid, None),
        rtol=1e-4,
        atol=1e-4,
    )


@few
@given(seeds, st.integers(0, 5), st.integers(0, 3))
def test_gyration_keeps_when_what_lies_in_a_window_moves(seed: int, top: int, left: int):
    grid, size = (9, 7), (4, 4)
    content = as_image(random_maps(seed, size), size)
    moved = []
    for row, column in ((0, 0), (top, left)):
        image = torch.zeros(3, *grid)
        image[:, row : row + 4, column : column + 4] = content
        moved.append(gyration(image.flatten(-2), grid, None))
    torch.testing.assert_close(*moved, rtol=1e-4, atol=1e-4)


@few
@given(grids, seeds)
def test_entropy_and_coverage_keep_under_any_permutation_of_keys(grid: Grid, seed: int):
    maps = random_maps(seed, grid)
    order = torch.randperm(maps.shape[-1], generator=torch.Generator().manual_seed(seed))
    shuffled = maps[:, order]
    torch.testing.assert_close(entropy(shuffled, None), entropy(maps, None))
    for after, before in zip(
        coverage(shuffled, SHARES, None), coverage(maps, SHARES, None), strict=True
    ):
        torch.testing.assert_close(after, before)
