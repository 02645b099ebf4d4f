"""Attention statistics in chunks against explicit attention, and their sums over batches."""

import math
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trainers.globality.functionals import Grid
from trainers.globality.statistics import (
    DESCRIPTIONS,
    MEASURES,
    Accumulator,
    Place,
    measure_attention,
)

torch.set_num_threads(1)

Layers = list[tuple[Tensor, Tensor]]


def random_layers(
    seed: int, layers: int, images: int, heads: int, grid: Grid, width: int = 4, gain: float = 1.5
) -> Layers:
    generator = torch.Generator().manual_seed(seed)
    shape = (images, heads, 1 + math.prod(grid), width)
    return [
        (
            gain * torch.randn(shape, generator=generator),
            gain * torch.randn(shape, generator=generator),
        )
        for _ in range(layers)
    ]


def of_one_query(a: Tensor, token: int, grid: Grid) -> dict[str, float]:
    """Every measure of one attention row [T] in float64, straight from its equation."""
    tokens = len(a)
    counted = [j for j in range(1, tokens) if j != token]
    m = float(a[counted].sum())
    p = a[counted] / m
    x = torch.tensor([((j - 1) // grid[1], (j - 1) % grid[1]) for j in counted]).double()
    spread = (p * ((x - p @ x) ** 2).sum(1)).sum()
    of_uniform = ((x - x.mean(0)) ** 2).sum(1).mean()
    found = {
        "gyration": float((spread / of_uniform).sqrt()),
        "entropy": float(-(p * p.log()).sum()) / math.log(len(counted)),
        "self_mass": (float(a[token]) - 1 / tokens) / (1 - 1 / tokens),
        "patch_mass": m,
    }
    for name, share in (("coverage", 0.6), ("coverage_90", 0.9)):
        total, number = 0.0, 0.0
        for weight in sorted(p.tolist(), reverse=True):
            if total + weight >= share:
                number += (share - total) / weight
                break
            total, number = total + weight, number + 1
        found[name] = number / (share * len(counted))
    if token:
        found["cls_mass"] = (float(a[0]) - 1 / tokens) / (1 - 1 / tokens)
    return found


def reference(layers: Layers, grid: Grid) -> dict[Place, tuple[int, float]]:
    """Counts and sums from the whole attention in float64, query by query."""
    values: dict[Place, list[float]] = defaultdict(list)
    for layer, (queries, keys) in enumerate(layers, start=1):
        logits = torch.einsum("bhqk,bhtk->bhqt", queries.double(), keys.double())
        attention = torch.softmax(logits / math.sqrt(queries.shape[-1]), dim=-1)
        for image in attention:
            for head, rows in enumerate(image, start=1):
                for token, row in enumerate(rows):
                    for name, value in of_one_query(row, token, grid).items():
                        values["patch" if token else "cls", name, layer, head].append(value)
    return {place: (len(some), math.fsum(some)) for place, some in values.items()}


def assert_same(one: Accumulator, other: Accumulator, *, rel: float) -> None:
    assert one.sums.keys() == other.sums.keys()
    assert (one.undefined, one.layers) == (other.undefined, other.layers)
    for place, (count, total) in one.sums.items():
        assert count == other.sums[place][0]
        assert total == pytest.approx(other.sums[place][1], rel=rel, abs=rel)


# measure_attention


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (5, 1)])
def test_statistics_are_those_of_the_whole_attention_for_every_chunk_size(grid: Grid):
    layers = random_layers(0, 2, 2, 3, grid)
    expected = reference(layers, grid)
    patches = math.prod(grid)
    for query_chunk in (1, 4, patches - 1, patches, 1000):
        found = measure_attention(layers, grid, query_chunk)
        assert found.layers == 2
        assert found.undefined == 0
        assert found.sums.keys() == expected.keys()
        for place, (count, total) in expected.items():
            assert found.sums[place][0] == count
            assert found.sums[place][1] / count == pytest.approx(total / count, abs=2e-5), place


def test_each_image_head_and_query_is_counted_once():
    images, heads, grid = 3, 2, (2, 4)
    found = measure_attention(random_layers(1, 2, images, heads, grid), grid, 3)
    for (token, _, layer, head), (count, _) in found.sums.items():
        assert count == images * (8 if token == "patch" else 1)
        assert layer in (1, 2)
        assert head in (1, 2)
    both = len(MEASURES) + len(MEASURES) - 1
    assert len(found.sums) == both * 2 * heads


def test_equal_keys_give_uniform_attention():
    grid = (3, 4)
    tokens = 13
    queries = torch.randn(2, 1, tokens, 4, generator=torch.Generator().manual_seed(0))
    values = measure_attention([(queries, torch.ones_like(queries))], grid, 5).metrics((1,))
    for token, others in (("cls", 12), ("patch", 11)):
        for name in ("gyration", "entropy", "coverage", "coverage_90"):
            assert values[f"globality/{token}/{name}"] == pytest.approx(1, abs=1e-5)
        assert values[f"globality/{token}/self_mass"] == pytest.approx(0, abs=1e-6)
        assert values[f"globality/{token}/patch_mass"] == pytest.approx(others / tokens)
    assert values["globality/patch/cls_mass"] == pytest.approx(0, abs=1e-6)


def test_half_precision_is_widened_before_the_product():
    grid = (3, 3)
    layers = random_layers(2, 1, 1, 2, grid)
    half = [(queries.bfloat16(), keys.bfloat16()) for queries, keys in layers]
    widened = [(queries.float(), keys.float()) for queries, keys in half]
    assert measure_attention(half, grid, 4) == measure_attention(widened, grid, 4)


def test_autocast_around_it_does_not_reach_the_products():
    grid = (3, 3)
    layers = random_layers(2, 1, 1, 2, grid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = measure_attention(layers, grid, 4)
    assert found == measure_attention(layers, grid, 4)


def test_layers_may_come_one_at_a_time():
    grid = (2, 3)
    layers = random_layers(3, 3, 1, 1, grid)
    assert measure_attention(iter(layers), grid, 2) == measure_attention(layers, grid, 2)


class LargestOutput(TorchDispatchMode):
    """Records the elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return found


def test_no_tensor_as_large_as_the_whole_attention_is_made():
    grid, images, heads, chunk = (10, 20), 2, 3, 16
    tokens = 1 + math.prod(grid)
    layers = random_layers(4, 1, images, heads, grid)
    with LargestOutput() as largest:
        measure_attention(layers, grid, chunk)
    assert largest.elements == images * heads * chunk * tokens
    assert largest.elements < images * heads * tokens * tokens
    with LargestOutput() as largest:
        measure_attention(layers, grid, tokens)
    assert largest.elements == images * heads * (tokens - 1) * tokens


# Queries without attention on patches


def attention_to(targets: list[int]) -> tuple[Tensor, Tensor]:
    """Queries and keys by which token t attends to token targets[t] alone, one image and head."""
    tokens = len(targets)
    keys = torch.eye(tokens)
    return 1e3 * keys[targets][None, None], keys[None, None]


def test_queries_without_attention_on_patches_are_counted_and_left_out():
    # [CLS] attends to itself, patches 1 and 2 to [CLS] and themselves, 3 and 4 to 1 and 2.
    found = measure_attention([attention_to([0, 0, 2, 1, 2])], (2, 2), 3)
    undefined = ("gyration", "entropy", "coverage", "coverage_90")
    assert found.undefined == len(undefined) * 3
    for name in undefined:
        assert found.sums["cls", name, 1, 1] == (0, 0.0)
        assert found.sums["patch", name, 1, 1][0] == 2
    values = found.metrics((1,))
    assert values["globality/undefined"] == 12
    assert values["globality/patch/gyration"] == pytest.approx(0, abs=1e-5)
    assert values["globality/patch/coverage"] == pytest.approx(1 / 3)
    # Masses are known of every query.
    assert values["globality/cls/patch_mass"] == 0
    assert values["globality/cls/self_mass"] == pytest.approx(1)
    assert values["globality/patch/patch_mass"] == pytest.approx(1 / 2)
    own = ((1 - 1 / 5) - 3 / 5) / 4 / (1 - 1 / 5)
    assert values["globality/patch/self_mass"] == pytest.approx(own, abs=1e-6)
    to_cls = ((1 - 1 / 5) - 3 / 5) / 4 / (1 - 1 / 5)
    assert values["globality/patch/cls_mass"] == pytest.approx(to_cls, abs=1e-6)


def test_a_metric_without_any_value_is_left_out_and_so_is_its_contrast():
    values = measure_attention([attention_to([0, 0, 2, 1, 2])], (2, 2), 3).metrics((1,))
    for name in ("gyration", "entropy", "coverage", "coverage_90"):
        for suffix in ("", "/final_block", "@1.1"):
            assert f"globality/cls/{name}{suffix}" not in values
            assert f"globality/patch/{name}{suffix}" in values
            assert f"globality/contrast/{name}{suffix}" not in values
    assert all(math.isfinite(value) for value in values.values())


def test_a_grid_of_one_patch_is_measured_as_far_as_defined():
    found = measure_attention(random_layers(5, 1, 2, 1, (1, 1)), (1, 1), 4)
    values = found.metrics((1,))
    # Gyration and entropy of two [CLS] queries, those and both coverages of two patch queries.
    assert values["globality/undefined"] == 2 * 2 + 4 * 2
    assert values["globality/cls/coverage"] == pytest.approx(1)
    assert "globality/cls/gyration" not in values
    assert "globality/patch/coverage" not in values
    assert values["globality/patch/patch_mass"] == 0
    assert all(math.isfinite(value) for value in values.values())


# merge


def test_merge_of_batches_is_one_pass_over_all_images():
    grid = (3, 4)
    layers = random_layers(6, 2, 7, 2, grid)
    whole = measure_attention(layers, grid, 5)
    for borders in ((0, 4, 7), (0, 1, 3, 7), tuple(range(8))):
        merged: Accumulator | None = None
        for start, stop in pairwise(borders):
            part = measure_attention(
                [(queries[start:stop], keys[start:stop]) for queries, keys in layers], grid, 5
            )
            merged = part if merged is None else merged.merge(part)
        assert merged is not None
        # A batched product of other shape may round otherwise in float32.
        assert_same(merged, whole, rel=1e-5)


def exact_parts() -> list[Accumulator]:
    parts = [measure_attention(random_layers(i, 2, 2, 2, (3, 3)), (3, 3), 4) for i in range(3)]
    return [*parts, measure_attention([attention_to([0, 0, 2, 1, 2])], (2, 2), 3)]


def test_merge_is_commutative():
    parts = exact_parts()
    for one in parts:
        for other in parts:
            assert one.merge(other) == other.merge(one)


def test_merge_is_associative():
    a, b, c, d = exact_parts()
    left = a.merge(b).merge(c).merge(d)
    assert_same(left, a.merge(b.merge(c.merge(d))), rel=1e-14)
    assert_same(left, a.merge(b).merge(c.merge(d)), rel=1e-14)
    assert left.undefined == d.undefined == 12


def test_merge_with_an_empty_accumulator_changes_nothing():
    one = exact_parts()[0]
    empty = Accumulator({}, 0, 0)
    assert one.merge(empty) == empty.merge(one) == one


def test_merge_leaves_its_parts_as_they_were():
    one, other, *_ = exact_parts()
    before = dict(one.sums), dict(other.sums)
    one.merge(other)
    assert (one.sums, other.sums) == before


# metrics


def known_sums() -> Accumulator:
    """Three layers of two heads; means of layer l, head h: cls 10 l + h, patch l + h / 10."""
    sums: dict[Place, tuple[int, float]] = {}
    for layer in (1, 2, 3):
        for head in (1, 2):
            sums["cls", "entropy", layer, head] = (4, 4.0 * (10 * layer + head))
            sums["patch", "entropy", layer, head] = (20, 20.0 * (layer + head / 10))
            sums["patch", "cls_mass", layer, head] = (20, 20.0 * layer)
    return Accumulator(sums, 5, 3)


def test_metrics_are_means_over_the_heads_of_the_primary_layers_and_of_the_final_block():
    values = known_sums().metrics((1, 2))
    expected = {
        "globality/cls/entropy": (11 + 12 + 21 + 22) / 4,
        "globality/patch/entropy": (1.1 + 1.2 + 2.1 + 2.2) / 4,
        "globality/contrast/entropy": (11 + 12 + 21 + 22 - 1.1 - 1.2 - 2.1 - 2.2) / 4,
        "globality/patch/cls_mass": (1 + 1 + 2 + 2) / 4,
        "globality/cls/entropy/final_block": (31 + 32) / 2,
        "globality/patch/entropy/final_block": (3.1 + 3.2) / 2,
        "globality/contrast/entropy/final_block": (31 + 32 - 3.1 - 3.2) / 2,
        "globality/patch/cls_mass/final_block": 3,
        "globality/undefined": 5,
    }
    for layer in (1, 2, 3):
        for head in (1, 2):
            expected[f"globality/cls/entropy@{layer}.{head}"] = 10 * layer + head
            expected[f"globality/patch/entropy@{layer}.{head}"] = layer + head / 10
            expected[f"globality/patch/cls_mass@{layer}.{head}"] = layer
    assert values == pytest.approx(expected)


def test_heads_count_alike_however_many_values_they_have():
    sums: dict[Place, tuple[int, float]] = {
        ("patch", "entropy", 1, 1): (1, 0.2),
        ("patch", "entropy", 1, 2): (99, 99 * 0.4),
    }
    assert Accumulator(sums, 98, 1).metrics((1,))["globality/patch/entropy"] == pytest.approx(0.3)


def test_primary_layers_that_the_network_lacks_give_no_primary_metric():
    values = known_sums().metrics((7, 8))
    assert "globality/cls/entropy" not in values
    assert "globality/cls/entropy/final_block" in values


def test_what_is_reported_is_what_is_described():
    values = measure_attention(random_layers(8, 2, 1, 2, (3, 3)), (3, 3), 4).metrics((1, 2))
    assert {name for name in values if "@" not in name} == set(DESCRIPTIONS)


def test_contrast_is_cls_minus_patch():
    values = measure_attention(random_layers(9, 3, 2, 2, (3, 3)), (3, 3), 4).metrics((2, 3))
    contrasts = [name for name in values if "/contrast/" in name]
    assert len(contrasts) == 2 * (len(MEASURES) - 1)
    for name in contrasts:
        cls, patch = (values[name.replace("contrast", token)] for token in ("cls", "patch"))
        assert values[name] == pytest.approx(cls - patch)
