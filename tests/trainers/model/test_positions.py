"""Where tokens are: codes against their formulas, and what follows from them."""

import cmath
import math

import pytest
import torch

from trainers.config import ModelConfig
from trainers.model.positions import (
    interpolation,
    patch_coordinates,
    rotary_angles,
    rotate,
    sine_cosine,
)
from trainers.model.vit import VisionTransformer, initialise
from trainers.randomness.forward_draws import ForwardDraws

CPU = torch.device("cpu")


def model(seed=0, side=16, **changes):
    made = VisionTransformer(ModelConfig(**{"depth": 2, **changes}), side)
    initialise(made, seed, 0.2)
    return made


def images(count=2, side=16, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_positions_of_every_grid_are_float32_where_the_rest_is_bfloat16():
    network = model(patch_position="learned")
    with torch.no_grad():
        exact = [network._positions(grid) for grid in ((4, 4), (2, 2))]
        with torch.autocast("cpu", torch.bfloat16):
            found = [network._positions(grid) for grid in ((4, 4), (2, 2))]
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 4)])
def test_coordinates_are_the_centres_of_patches_in_an_image_from_minus_1_to_1(grid):
    expected = [
        ((2 * row + 1) / grid[0] - 1, (2 * column + 1) / grid[1] - 1)
        for row in range(grid[0])
        for column in range(grid[1])
    ]
    torch.testing.assert_close(patch_coordinates(grid, CPU), torch.tensor(expected))


@pytest.mark.parametrize(("grid", "width"), [((4, 4), 8), ((14, 14), 192), ((3, 5), 48)])
def test_sine_cosine_codes_are_those_of_moco_v3(grid, width):
    in_float32 = sine_cosine(patch_coordinates(grid, CPU), grid, width)
    exact = [[(2 * i + 1) / grid[0] - 1, (2 * j + 1) / grid[1] - 1]
             for i in range(grid[0]) for j in range(grid[1])]  # fmt: skip
    ours = sine_cosine(torch.tensor(exact, dtype=torch.float64), grid, width)
    torch.testing.assert_close(in_float32.double(), ours, rtol=0, atol=3e-6)
    for row in range(grid[0]):
        for column in range(grid[1]):
            code = []
            for place, function in (
                (column, math.sin), (column, math.cos), (row, math.sin), (row, math.cos)
            ):  # fmt: skip
                for k in range(width // 4):
                    code.append(function(place / 10000 ** (k / (width // 4))))
            expected = torch.tensor(code, dtype=torch.float64)
            found = ours[row * grid[1] + column]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("features", "base"), [(8, 100.0), (64, 100.0), (16, 10.0)])
def test_a_rotation_turns_pairs_of_features_as_complex_numbers(features, base):
    generator = torch.Generator().manual_seed(0)
    coordinates = torch.rand(5, 2, generator=generator, dtype=torch.float64) * 2 - 1
    heads = torch.randn(1, 1, 5, features, generator=generator, dtype=torch.float64)
    angles = rotary_angles(coordinates, features, base)
    turned = rotate(heads, angles.cos(), angles.sin())[0, 0]
    half, quarter = features // 2, features // 4
    for token in range(5):
        for k in range(half):
            coordinate = float(coordinates[token, k // quarter])
            # DINOv3: period base^(2 k / (features / 2)), coordinates in turns.
            period = base ** (2 * (k % quarter) / half)
            number = complex(heads[0, 0, token, k], heads[0, 0, token, k + half])
            number *= cmath.exp(2j * math.pi * coordinate / period)
            expected = torch.tensor([number.real, number.imag], dtype=torch.float64)
            torch.testing.assert_close(turned[token, [k, k + half]], expected)


def test_rotated_products_depend_on_differences_of_coordinates_alone():
    generator = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, 1, 1, 1, 16, generator=generator)
    here, there, shift = torch.rand(3, 1, 2, generator=generator)

    def product(q_at, k_at):
        angles = [rotary_angles(at, 16, 100.0) for at in (q_at, k_at)]
        turned = [rotate(x, a.cos(), a.sin()) for x, a in zip((query, key), angles, strict=True)]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(product(here, there), product(here + shift, there + shift))
    assert not torch.isclose(product(here, there), product(here + shift, there))


@pytest.mark.parametrize(("full", "part"), [((4, 4), (2, 2)), ((14, 14), (6, 6)), ((4, 4), (6, 6))])
@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_interpolation_keeps_a_constant(full, part, offset):
    matrix = interpolation(full, part, offset, CPU)
    assert matrix.shape == (part[0] * part[1], full[0] * full[1])
    torch.testing.assert_close(matrix.sum(1), torch.ones(part[0] * part[1]))


ROTARY = {"patch_position": "rotary"}


def test_an_unrotated_cls_stands_at_the_origin():
    centre = model(**ROTARY, cls_position="none")
    at_centre = model(**ROTARY, cls_position="rotary", cls_coordinate=(0.0, 0.0))
    corner = model(**ROTARY, cls_position="none", rotary_origin="corner")
    at_corner = model(**ROTARY, cls_position="rotary", cls_coordinate=(-1.0, -1.0))
    seen = images()
    for unrotated, rotated in ((centre, at_centre), (corner, at_corner)):
        torch.testing.assert_close(
            unrotated(seen).tokens, rotated(seen).tokens, rtol=1e-4, atol=1e-5
        )
    assert not torch.allclose(centre(seen).cls, corner(seen).cls, atol=1e-3)


def test_the_origin_matters_to_unrotated_tokens_alone():
    settings = {**ROTARY, "cls_position": "rotary", "cls_coordinate": (0.5, -0.5)}
    centre, corner = model(**settings), model(**settings, rotary_origin="corner")
    torch.testing.assert_close(
        centre(images()).tokens, corner(images()).tokens, rtol=1e-4, atol=1e-5
    )


def blocks_of(seen, order):
    """The same images with their 4×4 patches of 4 pixels in another order."""
    blocks = seen.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)[:, :, order]
    rows = blocks.unflatten(2, (4, 4)).permute(0, 1, 2, 4, 3, 5)
    return rows.reshape(seen.shape)


@pytest.mark.parametrize(
    ("position", "equivariant"),
    [("none", True), ("learned", False), ("sincos", False), ("rotary", False)],
)
def test_only_without_positions_is_the_network_blind_to_the_order_of_patches(position, equivariant):
    network = model(patch_position=position, cls_position="none", registers=2)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    plain, moved = network(images()), network(blocks_of(images(), order))
    same = torch.allclose(plain.patches[:, order], moved.patches, atol=1e-4)
    assert same is equivariant
    assert torch.allclose(plain.cls, moved.cls, atol=1e-4) is equivariant


def test_a_sincos_cls_in_the_middle_of_a_patch_carries_the_code_of_that_patch():
    network = model(patch_position="sincos", cls_position="sincos", cls_coordinate=(-0.75, 0.25))
    # On a 4×4 grid these are the coordinates of the patch in row 0 and column 2.
    table = network._positions((4, 4))
    torch.testing.assert_close(network._positioned_cls(None)[0, 0], network.cls[0, 0] + table[0, 2])


def test_a_random_cls_carries_the_position_that_was_drawn():
    wandering = model(cls_position="random")
    drawn = torch.tensor([3, 14])
    output = wandering(images(), ForwardDraws(cls_patch=drawn))
    for row, patch in enumerate(drawn.tolist()):
        tied = model(cls_position="tied", cls_tied_patch=(patch // 4, patch % 4))
        torch.testing.assert_close(output.tokens[row], tied(images()).tokens[row])


def test_a_network_without_cls_has_patches_and_registers_alone():
    output = model(cls=False, registers=3)(images())
    assert output.tokens.shape == (2, 3 + 16, 48)
    assert output.registers.shape == (2, 3, 48)
    assert output.patches.shape == (2, 16, 48)
    with pytest.raises(AssertionError, match="no \\[CLS\\]"):
        _ = output.cls


@pytest.mark.parametrize("changes", [{}, {"registers": 2}, {**ROTARY, "cls_position": "rotary"}])
def test_first_tokens_alone_are_those_of_the_whole_network(changes):
    network = model(**changes)
    whole, part = network(images()), network(images(), only_first=True)
    first = 1 + changes.get("registers", 0)
    torch.testing.assert_close(part.tokens, whole.tokens[:, :first], rtol=1e-5, atol=1e-6)
    with pytest.raises(AssertionError, match="not asked for"):
        _ = part.patches
    for output in (whole.cls, part.cls):
        output.square().sum().backward()
        gradient = network.blocks[-1].attention.qkv.weight.grad.clone()
        network.zero_grad()
        if output is part.cls:
            torch.testing.assert_close(gradient, before, rtol=1e-4, atol=1e-6)  # noqa: F821
        before = gradient  # noqa: F841
