"""Influence and gradient reach against explicit loops, on models whose dependence is known."""

import math

import pytest
import torch
from torch import Tensor

from tests.trainers.globality.observed import layout
from trainers.globality.causal import (
    PROBES,
    REACH_QUERIES,
    gradient_reach,
    influence,
    measure_causes,
    substitutes,
)
from trainers.model.vit import Features
from trainers.randomness.forward_draws import ForwardDraws
from trainers.randomness.streams import Stream

torch.set_num_threads(1)

SIDE, GRID = 4, (3, 3)


def pictures(images: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, 3, SIDE * 3, SIDE * 3, generator=generator)


def cut(crops: Tensor) -> Tensor:
    """Patches [B, N, 3 · SIDE · SIDE], row by row."""
    return torch.nn.functional.unfold(crops, SIDE, stride=SIDE).transpose(1, 2)


class Weighing:
    """A model without nonlinearity: token t is the sum of patches j, each times weights[t, j]."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def __call__(self, crops: Tensor, draws: ForwardDraws | None = None) -> Features:
        return Features(
            tokens=self.weights @ cut(crops), grid=GRID, has_cls=True, registers_count=0
        )


class Bent(Weighing):
    """The same through a nonlinearity."""

    def __call__(self, crops: Tensor, draws: ForwardDraws | None = None) -> Features:
        plain = super().__call__(crops, draws)
        return Features(tokens=torch.tanh(plain.tokens), grid=GRID, has_cls=True, registers_count=0)


@pytest.mark.parametrize("replacement", ["mean", "other", "moved"])
def test_influence_is_one_minus_cosine_with_a_patch_replaced(replacement):
    weights = torch.randn(3, 9, generator=torch.Generator().manual_seed(1))
    model, crops = Bent(weights), pictures(4)
    instead = substitutes(crops, replacement, GRID)
    found = influence(model, crops, None, torch.tensor([0, 2]), GRID, instead)
    assert found.shape == (4, 2, 9)
    for image in range(4):
        for patch in range(9):
            row, column = divmod(patch, 3)
            there = (..., slice(row * 4, row * 4 + 4), slice(column * 4, column * 4 + 4))
            changed = crops[image].clone()
            source, taken = crops[image], (row, column)
            if replacement == "mean":
                source = crops.mean(0)
            elif replacement == "other":
                source = crops[image - 1]
            else:
                taken = ((row - 1) % 3, (column - 1) % 3)
            first, second = (4 * place for place in taken)
            changed[there] = source[:, first : first + 4, second : second + 4]
            for place, token in enumerate((0, 2)):
                before = model(crops[[image]]).tokens[0, token].double()
                after = model(changed[None]).tokens[0, token].double()
                expected = 1 - float(torch.cosine_similarity(before, after, dim=0))
                assert float(found[image, place, patch]) == pytest.approx(expected, abs=1e-6)


def test_influence_needs_another_image():
    with pytest.raises(AssertionError, match="no other"):
        substitutes(pictures(1), "mean", GRID)


def test_the_reach_of_a_weighted_sum_is_its_weights():
    weights = torch.randn(2, 9, generator=torch.Generator().manual_seed(2))
    crops, stream = pictures(2), Stream(3, "directions")
    found = gradient_reach(Weighing(weights), crops, None, torch.arange(2), GRID, stream)
    # Of the 48 features, u · z has the gradient weights[t, j] u: its size is |weight| ‖u‖.
    directions = stream.normal(torch.Size((PROBES, 48)), 1.0)
    expected = weights.abs() * directions.square().sum(1).mean().sqrt()
    torch.testing.assert_close(found, expected.expand(2, -1, -1))
    assert float(expected.mean() / weights.abs().mean()) == pytest.approx(math.sqrt(48), rel=0.15)


def test_reach_is_that_of_the_jacobian_along_the_drawn_directions():
    weights = torch.randn(2, 9, generator=torch.Generator().manual_seed(4))
    model, crops, stream = Bent(weights), pictures(1), Stream(5, "directions")
    found = gradient_reach(model, crops, None, torch.tensor([1]), GRID, stream)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x).tokens[0, 1], crops)
    along = torch.einsum("pd,dbcyx->pbcyx", stream.normal(torch.Size((PROBES, 48)), 1.0), jacobian)
    squares = torch.stack([cut(one.square()).sum(-1) for one in along]).mean(0)
    torch.testing.assert_close(found[0], squares.sqrt(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_squares_of_reach_are_those_of_the_whole_jacobian_on_average():
    """E ‖∂(u · z) / ∂x_j‖² = ‖∂z / ∂x_j‖_F², here over 400 streams of PROBES directions each."""
    weights = torch.randn(2, 9, generator=torch.Generator().manual_seed(6))
    model, crops = Bent(weights), pictures(1)
    squares = torch.stack(
        [
            gradient_reach(model, crops, None, torch.tensor([0]), GRID, Stream(seed, "many"))[0, 0]
            .double()
            .square()
            for seed in range(400)
        ]
    )
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x).tokens[0, 0], crops)
    whole = cut(jacobian[:, 0].square()).sum((0, 2)).double()
    error = squares.std(0) / math.sqrt(len(squares))
    assert ((squares.mean(0) - whole).abs() < 4 * error).all()
    assert (error < 0.03 * whole).all()


@pytest.mark.parametrize("grid", [(2, 3), (6, 6)])
def test_gradients_are_taken_of_at_most_so_many_patch_queries(grid):
    images = torch.randn(2, 3, 2 * grid[0], 2 * grid[1], generator=torch.Generator().manual_seed(0))
    tokens = layout(grid)
    patches = grid[0] * grid[1]

    def model(crops: Tensor, draws: ForwardDraws | None = None) -> Features:
        patches = torch.nn.functional.unfold(crops, 2, stride=2).transpose(1, 2)
        mixed = patches.mean(1, keepdim=True) + patches
        return Features(
            tokens=torch.cat([mixed[:, :1], mixed], dim=1),
            grid=grid,
            has_cls=True,
            registers_count=0,
        )

    found, _, _ = measure_causes(model, [(images, None)], tokens, replacement="mean", seed=0)
    count = found.values["reach", "patch", "reliance", 0][0].item() / len(images)
    assert count == min(patches, REACH_QUERIES)
    assert found.values["influence", "patch", "reliance", 0][0].item() == patches * len(images)


@pytest.mark.parametrize("replacement", ["mean", "other", "moved"])
def test_images_may_come_in_any_batches(replacement):
    weights = torch.randn(10, 9, generator=torch.Generator().manual_seed(6))
    crops = pictures(5)
    found = []
    for sizes in ([5], [2, 3], [1, 1, 1, 1, 1]):
        batches = [(part, None) for part in crops.split(sizes)]
        total, _, _ = measure_causes(
            Bent(weights), batches, layout(GRID), replacement=replacement, seed=0
        )
        found.append(total.metrics(()))
    assert found[1] == pytest.approx(found[0], abs=1e-5)
    assert found[2] == pytest.approx(found[0], abs=1e-5)


def test_each_share_of_each_batch_says_which_images_it_has_measured():
    weights = torch.randn(10, 9, generator=torch.Generator().manual_seed(6))

    def measured(sizes: list[int], share: slice) -> tuple[Tensor, Tensor]:
        batches = [(part, None) for part in pictures(7).split(sizes)]
        _, maps, numbers = measure_causes(
            Bent(weights), batches, layout(GRID), replacement="mean", seed=0, share=share
        )
        return maps, numbers

    whole, numbers = measured([7], slice(None))
    assert numbers.tolist() == list(range(7))
    for sizes in ([3, 4], [2, 2, 2, 1]):
        shares = [measured(sizes, slice(rank, None, 3)) for rank in range(3)]
        assert sorted(torch.cat([numbers for _, numbers in shares]).tolist()) == list(range(7))
        for maps, numbers in shares:
            assert torch.allclose(maps, whole[numbers], atol=1e-5)


def metrics_of(weights: Tensor) -> dict[str, float]:
    batches = [(pictures(6), None)]
    found, _, _ = measure_causes(
        Weighing(weights), batches, layout(GRID), replacement="other", seed=0
    )
    return found.metrics(())


def test_equal_weights_reach_everywhere_and_one_weight_reaches_one_patch():
    everywhere = metrics_of(torch.ones(10, 9))
    assert everywhere["reach/cls/gyration"] == pytest.approx(1, abs=1e-5)
    assert everywhere["reach/cls/entropy"] == pytest.approx(1, abs=1e-5)
    assert everywhere["reach/patch/gyration"] == pytest.approx(1, abs=1e-5)
    one = torch.zeros(10, 9)
    one[:, 4] = 1
    single = metrics_of(one)
    for group in ("reach", "influence"):
        assert single[f"{group}/cls/gyration"] == pytest.approx(0, abs=1e-3)
        assert single[f"{group}/cls/entropy"] == pytest.approx(0, abs=1e-4)
        assert single[f"{group}/cls/coverage"] == pytest.approx(1 / 9, abs=1e-4)


def test_an_output_that_depends_on_nothing_has_no_map_and_is_counted():
    constant, batches = Weighing(torch.zeros(10, 9)), [(pictures(3), None)]
    found, _, _ = measure_causes(constant, batches, layout(GRID), replacement="mean", seed=0)
    assert found.undefined.total() > 0
    metrics = found.metrics(())
    assert "influence/cls/gyration" not in metrics
    assert metrics["influence/cls/reliance"] == 0


def test_a_patch_does_not_count_its_influence_on_itself():
    found = metrics_of(torch.cat([torch.ones(1, 9), torch.eye(9) + 0.1]))
    assert found["influence/patch/gyration"] == pytest.approx(1, abs=0.1)
    assert found["reach/patch/gyration"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("grid", [(2, 2), (3, 4), (1, 6)])
def test_what_is_moved_are_the_patches_of_the_image_each_in_another_place(grid):
    numbers = torch.arange(grid[0] * grid[1]).float().view(1, 1, *grid)
    crops = (
        torch.cat([numbers, numbers + 100]).repeat_interleave(SIDE, 2).repeat_interleave(SIDE, 3)
    )
    moved = substitutes(crops.expand(-1, 3, -1, -1), "moved", grid)[:, 0, ::SIDE, ::SIDE].flatten(1)
    before = crops[:, 0, ::SIDE, ::SIDE].flatten(1)
    assert (moved != before).all()
    torch.testing.assert_close(moved.sort(dim=1).values, before)
