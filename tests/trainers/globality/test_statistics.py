"""Attention statistics in parts against the whole attention, query by query in float64.

Over 400 lines: many small facts of one thing, which are looked for together.
"""

import dataclasses
import math
from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import xlogy
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainers.globality.observed import attending, layout, part, random_layer
from trainers.globality.accumulator import Accumulator
from trainers.globality.statistics import AttentionStatistics
from trainers.globality.tokens import Tokens
from trainers.model.vit import Layer

torch.set_num_threads(1)

LAYOUTS = {
    "plain": layout((4, 4)),
    "oblong": layout((3, 5), fixed_patch=7),
    "registers": layout((3, 4), registers=2, fixed_patch=0),
    "no cls": layout((3, 4), has_cls=False, registers=1),
    "sampled": layout((4, 5), registers=1, queries=[0, 7, 11, 19]),
    "bare": layout((2, 3), has_cls=False),
}


def measured(tokens: Tokens, *layers: Layer, memory: float = 16.0, **options: Any) -> Accumulator:
    statistics = AttentionStatistics(tokens, memory=memory, **options)
    for layer in layers:
        statistics(layer)
    return statistics.total


def whole_attention(layer: Layer) -> np.ndarray:
    logits = layer.queries.double() @ layer.keys.double().transpose(2, 3)
    return torch.softmax(logits / math.sqrt(layer.queries.shape[-1]), -1).numpy()


def of_map(p: np.ndarray, x: np.ndarray, own: int | None) -> dict[str, float]:
    """Measures of one map, from their equations; `own` is the query's patch, which p lacks."""
    counted = [j for j in range(len(p)) if j != own]
    q, y = p[counted], x[counted]
    spread, uniform = (w @ ((y - w @ y) ** 2).sum(1) for w in (q, np.full(len(q), 1 / len(q))))
    apart = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
    found = {
        "gyration": math.sqrt(spread / uniform),
        "entropy": -xlogy(q, q).sum() / math.log(len(q)),
        "nearest_distance": min(p @ row / row[counted].mean() for row in apart),
    }
    for name, share in (("coverage", 0.6), ("coverage_90", 0.9)):
        total, number = 0.0, 0.0
        for weight in sorted(q, reverse=True):
            if total + weight >= share:
                number += (share - total) / weight
                break
            total, number = total + weight, number + 1
        found[name] = number / (share * len(q))
    if own is not None:
        found["distance_patches"] = p @ apart[own]
        found["distance"] = found["distance_patches"] / (apart[own].sum() / (len(p) - 1))
    return found


def reference(attention: np.ndarray, tokens: Tokens) -> dict[tuple[str, str], list[float]]:
    """Mean by head of every measure of attention [B, H, T, T], by token and name."""
    rows, columns = tokens.grid
    x = np.array([(r, c) for r in range(rows) for c in range(columns)], float)
    apart = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
    images, heads, count, _ = attention.shape
    first, queries = tokens.first, tokens.patch_queries.tolist()
    values: dict[tuple[str, str], list[list[float]]] = defaultdict(
        lambda: [[] for _ in range(heads)]
    )
    kinds = [(n, t.tolist(), None if p is None else p.tolist()) for n, t, p in tokens.rows()]
    for head in range(heads):
        for image in range(images):
            a = attention[image, head]
            for name, places, patches in kinds:
                for number, place in enumerate(places):
                    own = None if patches is None else patches[number]
                    p = a[place, first:].copy()
                    if own is not None:
                        p[own] = 0
                    mass = p.sum()
                    found = of_map(p / mass, x, own)
                    found["patch_mass"] = mass
                    found["self_mass"] = (a[place, place] - 1 / count) / (1 - 1 / count)
                    if tokens.has_cls and name != "cls":
                        found["cls_mass"] = (a[place, 0] - 1 / count) / (1 - 1 / count)
                    if tokens.registers and name != "register":
                        share = tokens.registers / count
                        to_registers = a[place, int(tokens.has_cls) : first].sum()
                        found["register_mass"] = (to_registers - share) / (1 - share)
                    for measure, value in found.items():
                        values[name, measure][head].append(value)
            full = a[first:, first:][queries]
            full = full / full.sum(1, keepdims=True)
            numerator = (full * apart[queries]).sum()
            values["patch", "locality"][head].append(
                1 - numerator / (full * apart[queries].mean(0)).sum()
            )
            shared = full.mean(0)
            of_keys = -xlogy(shared, shared).sum()
            information = of_keys + xlogy(full, full).sum(1).mean()
            values["patch", "mutual_information"][head].append(
                information / math.sqrt(of_keys * math.log(len(queries)))
            )
    for name, places, patches in kinds:
        for head in range(heads):
            for number, place in enumerate(places):
                maps = attention[:, head, place, first:].copy()
                if patches is not None:
                    maps[:, patches[number]] = 0
                maps = maps / maps.sum(1, keepdims=True)
                counted = maps.shape[1] - (patches is not None)

                def entropy(p: np.ndarray) -> float:
                    return -xlogy(p, p).sum()

                of_mean, scale = entropy(maps.mean(0)), math.log(counted)
                each = np.mean([entropy(p) for p in maps])
                values[name, "positional_bias"][head].append(1 - of_mean / scale)
                values[name, "content_dependence"][head].append((of_mean - each) / scale)
    return {place: [float(np.mean(head)) for head in heads] for place, heads in values.items()}


@pytest.mark.parametrize("memory", [1e-6, 2e-4, 1e-3, 16.0])
@pytest.mark.parametrize("name", LAYOUTS)
def test_statistics_are_those_of_the_whole_attention_in_any_memory(name, memory):
    tokens = LAYOUTS[name]
    layer = random_layer(0, 3, 2, tokens.count, number=5)
    found = measured(tokens, layer, memory=memory).means()
    expected = reference(whole_attention(layer), tokens)
    ours = {(token, measure) for group, token, measure, _ in found if token != "sink"}
    assert ours - {("cls", "patch_cosine")} == set(expected)
    for (token, measure), values in expected.items():
        assert found["globality", token, measure, 5] == pytest.approx(values, abs=2e-5), measure


def test_norm_weighted_attention_counts_what_each_head_writes():
    tokens = layout((3, 4), registers=1)
    layer = random_layer(1, 2, 3, tokens.count)
    written = np.linalg.norm(
        np.einsum("bhtk,hkd->bhtd", layer.values.double(), layer.projection.double()), axis=-1
    )
    weighted = whole_attention(layer) * written[:, :, None]
    weighted /= weighted.sum(-1, keepdims=True)
    found = measured(tokens, layer, norm_weighted=True).means()
    for (token, measure), values in reference(weighted, tokens).items():
        assert found["norm_weighted", token, measure, 1] == pytest.approx(values, abs=2e-5), measure


def test_sinks_are_what_all_queries_attend_to():
    tokens = layout((3, 3), registers=1)
    layer = random_layer(2, 4, 2, tokens.count)
    received = whole_attention(layer).mean(2) * tokens.count
    expected = np.log(received.max(-1) / np.median(received, -1)).mean(0)
    norms = layer.values.norm(dim=-1).numpy()
    sink = np.take_along_axis(norms, received.argmax(-1)[..., None], -1)[..., 0]
    # PyTorch's median of an even number is the lower one; there are 11 tokens.
    values = (sink / np.median(norms, -1)).mean(0)
    found = measured(tokens, layer).means()
    assert found["globality", "sink", "concentration", 1] == pytest.approx(list(expected), abs=1e-5)
    assert found["globality", "sink", "value_norm", 1] == pytest.approx(list(values), abs=1e-5)


def test_a_sample_of_patch_queries_stands_for_all_in_what_tokens_receive():
    tokens = layout((4, 5), registers=1, queries=[1, 6, 7, 18])
    layer = random_layer(3, 3, 2, tokens.count)
    attention = whole_attention(layer)
    received = attention[:, :, :2].sum(2) + 20 / 4 * attention[:, :, [3, 8, 9, 20]].sum(2)
    lower = np.sort(received, -1)[..., (tokens.count - 1) // 2]
    expected = np.log(received.max(-1) / lower).mean(0)
    for memory in (1e-6, 16.0):
        found = measured(tokens, layer, memory=memory).means()[
            "globality", "sink", "concentration", 1
        ]
        assert found == pytest.approx(list(expected), abs=1e-5)


def test_outlying_tokens_and_the_cosine_of_cls_are_those_of_each_image():
    tokens = layout((4, 5), registers=2)
    layer = random_layer(5, 6, 2, tokens.count, number=3)
    outputs = layer.tokens.clone()
    outputs[0, [3, 7, 22]] *= 50
    outputs[:, :3] *= 1e3  # [CLS] and registers are no patches
    found = measured(tokens, dataclasses.replace(layer, tokens=outputs)).means()
    norms = np.linalg.norm(outputs[:, 3:].double().numpy(), axis=-1)
    shares, cosines = [], []
    for image in range(6):
        middle = np.sort(norms[image])[9]  # the lower of the two in the middle
        deviation = np.sort(np.abs(norms[image] - middle))[9]
        shares.append((norms[image] > middle + 5 * 1.4826 * deviation).mean())
        one = layer.normalised[image, 0].double().numpy()
        other = layer.normalised[image, 3:].double().numpy().mean(0)
        cosines.append(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert shares[0] >= 3 / 20
    assert found["globality", "sink", "outlier_share", 3] == pytest.approx([np.mean(shares)])
    assert found["globality", "cls", "patch_cosine", 3] == pytest.approx(
        [np.mean(cosines)], abs=1e-6
    )


class LargestOutput(TorchDispatchMode):
    """Records the elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return found


@pytest.mark.slow
def test_no_tensor_is_larger_than_the_memory_allows():
    tokens = layout((30, 40), queries=list(range(256)))
    layer = random_layer(4, 4, 3, tokens.count)
    memory = 3 * 16 * tokens.count * 4 / 2**20
    with LargestOutput() as largest:
        measured(tokens, layer, memory=memory)
    # Row and column differences of 256 places to all patches; sums of the maps of the queries.
    assert largest.elements <= max(2 * 256 * tokens.patches, 3 * 256 * (tokens.patches + 2))
    with LargestOutput() as largest:
        measured(tokens, layer)
    assert largest.elements >= 4 * 3 * 256 * tokens.patches


def test_half_precision_is_widened_and_autocast_kept_out():
    tokens = layout((3, 3))
    layer = random_layer(2, 1, 2, tokens.count)
    fields = ("queries", "keys", "values", "projection", "normalised", "tokens")
    half = dataclasses.replace(layer, **{name: getattr(layer, name).bfloat16() for name in fields})
    wide = dataclasses.replace(half, **{name: getattr(half, name).float() for name in fields})
    expected = measured(tokens, wide, norm_weighted=True).means()
    assert measured(tokens, half, norm_weighted=True).means() == expected
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert measured(tokens, wide, norm_weighted=True).means() == expected


def test_queries_without_attention_on_patches_are_counted_and_left_out():
    targets = torch.tensor([0, 0, 2, 1, 2])  # tokens 0 and 1 attend to [CLS], 2 to itself
    maps = torch.nn.functional.one_hot(targets, 5).float()[None, None]
    found = measured(layout((2, 2)), attending(maps))
    assert found.values["globality", "cls", "gyration", 1][0].tolist() == [0]
    assert found.values["globality", "patch", "gyration", 1][0].tolist() == [2]
    assert found.undefined["globality", "patch"] > 0
    metrics = found.metrics((1,))
    assert "globality/cls/gyration" not in metrics
    assert "globality/contrast/gyration" not in metrics
    assert metrics["globality/cls/patch_mass"] == pytest.approx(0, abs=1e-6)
    assert metrics["globality/undefined"] == found.undefined.total()
    patch = [sums for place, sums in found.values.items() if place[:2] == ("globality", "patch")]
    known = sum(sums[0].sum().item() for sums in patch)
    missing = found.undefined["globality", "patch"]
    assert metrics["globality/patch/undefined"] == missing / (missing + known)
    assert metrics["globality/sink/undefined"] == 0
    assert all(math.isfinite(value) for value in metrics.values())


def set_measures(attention: Tensor) -> dict[str, float]:
    """Locality and mutual information of one attention [T, T] of [CLS] and 2 × 2 patches."""
    metrics = measured(layout((2, 2)), attending(attention[None, None])).metrics((1,))
    names = ("locality", "mutual_information")
    return {
        name: metrics[f"globality/patch/{name}"]
        for name in names
        if f"globality/patch/{name}" in metrics
    }


def test_a_set_of_queries_of_which_one_sees_no_patch_has_no_locality_and_no_information():
    attention = torch.full((5, 5), 0.2)
    for own, others in ((0.0, 0.0), (1e-8, 1e-8), (1e-10, 9e-7), (9e-7, 1e-10)):
        attention[2] = torch.tensor([1.0, others / 3, own, others / 3, others / 3])
        assert set_measures(attention) == {}


def test_a_query_that_sees_its_own_patch_alone_attends_to_itself():
    attention = torch.full((5, 5), 0.2)
    attention[2] = torch.tensor([1 - 1e-4, 1e-9, 1e-4, 1e-9, 1e-9])
    maps = torch.full((4, 4), 0.25, dtype=torch.float64)
    maps[1] = torch.eye(4)[1]
    x = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).double()
    apart = torch.cdist(x, x)
    of_keys = torch.special.entr(maps.mean(0)).sum()
    information = of_keys - torch.special.entr(maps).sum(1).mean()
    assert set_measures(attention) == pytest.approx(
        {
            "locality": float(1 - (maps * apart).sum() / (maps @ apart.mean(0)).sum()),
            "mutual_information": float(information / (of_keys * math.log(4)).sqrt()),
        },
        abs=1e-4,
    )


# Planted maps


def planted(maps: Tensor, *, cls: Tensor) -> dict[str, float]:
    """Metrics of patch maps [B, N, N] and [CLS] maps [B, N] that hold all attention."""
    images, patches, _ = maps.shape
    attention = torch.zeros(images, 1, patches + 1, patches + 1)
    attention[:, 0, 1:, 1:] = maps
    attention[:, 0, 0, 1:] = cls
    side = math.isqrt(patches)
    return measured(layout((side, side)), attending(attention)).metrics((1,))


def window(grid: int, reach: int) -> Tensor:
    x = torch.cartesian_prod(torch.arange(grid), torch.arange(grid))
    near = ((x[:, None] - x[None]).abs().amax(-1) <= reach).float()
    return near / near.sum(1, keepdim=True)


def test_a_planted_window_has_its_width_and_its_locality():
    maps = window(14, 1).expand(3, -1, -1)
    middle = maps[:, 7 * 14 + 7]
    found = planted(maps, cls=middle)
    assert found["globality/cls/gyration"] == pytest.approx(math.sqrt(8 / 195), abs=1e-5)
    assert found["globality/cls/coverage"] == pytest.approx(9 / 196, abs=1e-5)
    assert found["globality/patch/locality"] == pytest.approx(0.856035, abs=1e-5)
    assert found["globality/patch/mutual_information"] == pytest.approx(0.60460, abs=1e-5)
    assert found["globality/cls/positional_bias"] == pytest.approx(
        1 - math.log(9) / math.log(196), abs=1e-5
    )
    assert found["globality/cls/content_dependence"] == pytest.approx(0, abs=1e-6)


def test_a_planted_shared_map_has_no_locality_and_no_information():
    shared = torch.rand(1, 1, 49, generator=torch.Generator().manual_seed(0)).expand(2, 49, -1)
    shared = shared / shared.sum(-1, keepdim=True)
    found = planted(shared, cls=shared[:, 0])
    assert found["globality/patch/locality"] == pytest.approx(0, abs=1e-5)
    assert found["globality/patch/mutual_information"] == pytest.approx(0, abs=3e-3)


def test_a_planted_map_that_follows_the_image_is_content_and_no_bias():
    around = torch.eye(16)[:, None].expand(16, 16, -1)  # image b: all attend to patch b
    found = planted(around, cls=around[:, 0])
    assert found["globality/cls/content_dependence"] == pytest.approx(1, abs=1e-5)
    assert found["globality/cls/positional_bias"] == pytest.approx(0, abs=1e-5)


# merge


def assert_same(one: Accumulator, other: Accumulator, tolerance: float) -> None:
    assert one.undefined == other.undefined
    for mine, theirs in ((one.values, other.values), (one.maps, other.maps)):
        assert mine.keys() == theirs.keys()
        for place, sums in mine.items():
            torch.testing.assert_close(sums, theirs[place], rtol=tolerance, atol=tolerance)


def test_merging_batches_is_one_pass_over_all_images():
    tokens = layout((3, 4), registers=1, fixed_patch=2)
    layers = [random_layer(6, 7, 2, tokens.count), random_layer(7, 7, 2, tokens.count, number=2)]
    whole = measured(tokens, *layers, norm_weighted=True)
    for borders in ((0, 4, 7), (0, 1, 3, 7), tuple(range(8))):
        merged = Accumulator()
        for start, stop in pairwise(borders):
            some = [part(layer, slice(start, stop)) for layer in layers]
            merged = merged.merge(measured(tokens, *some, norm_weighted=True))
        assert_same(merged, whole, 1e-4)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_images_may_be_parted_in_any_way(parts):
    tokens = layout((2, 3), fixed_patch=1)
    layer = random_layer(8, 6, 2, tokens.count)
    merged = Accumulator()
    for name in sorted(set(parts)):
        images = [image for image, its in enumerate(parts) if its == name]
        merged = merged.merge(measured(tokens, part(layer, images)))
    assert_same(merged, measured(tokens, layer), 1e-4)


def test_merge_is_commutative_associative_and_leaves_its_parts_alone():
    tokens = layout((3, 3))
    a, b, c = (measured(tokens, random_layer(seed, 2, 2, tokens.count)) for seed in range(3))
    before = {place: sums.clone() for place, sums in a.values.items()}
    assert_same(a.merge(b), b.merge(a), 0)
    assert_same(a.merge(b).merge(c), a.merge(b.merge(c)), 1e-14)
    assert_same(a.merge(Accumulator()), a, 0)
    assert_same(Accumulator().merge(a), a, 0)
    assert all(torch.equal(sums, a.values[place]) for place, sums in before.items())


# metrics


def known() -> Accumulator:
    """Three layers of two heads; means of layer l, head h: cls 10 l + h, patch l + h / 10."""
    total = Accumulator()
    for layer in (1, 2, 3):
        heads = torch.tensor([1.0, 2.0])[None, :, None]
        total.add(("globality", "cls", "entropy", layer), (10 * layer + heads).expand(4, -1, 1))
        total.add(("globality", "patch", "entropy", layer), (layer + heads / 10).expand(2, -1, 5))
    return total


def test_metrics_are_means_over_the_heads_of_the_primary_layers_and_of_the_final_block():
    values = known().metrics((1, 2), by_head=("globality",))
    expected = {
        "globality/cls/entropy": (11 + 12 + 21 + 22) / 4,
        "globality/patch/entropy": (1.1 + 1.2 + 2.1 + 2.2) / 4,
        "globality/contrast/entropy": (11 + 12 + 21 + 22 - 1.1 - 1.2 - 2.1 - 2.2) / 4,
        "globality/cls/entropy/final_block": 31.5,
        "globality/patch/entropy/final_block": 3.15,
        "globality/contrast/entropy/final_block": 31.5 - 3.15,
        "globality/cls/entropy/head_max": (12 + 22) / 2,
        "globality/patch/entropy/head_max": (1.2 + 2.2) / 2,
        "globality/cls/entropy/head_deviation": math.sqrt(0.5),
        "globality/patch/entropy/head_deviation": math.sqrt(0.5) / 10,
        "globality/undefined": 0,
        "globality/cls/undefined": 0,
        "globality/patch/undefined": 0,
    }
    for layer in (1, 2, 3):
        for head in (1, 2):
            expected[f"globality/cls/entropy@{layer}.{head}"] = 10 * layer + head
            expected[f"globality/patch/entropy@{layer}.{head}"] = layer + head / 10
    assert values == pytest.approx(expected)
    brief = known().metrics((1, 2))
    assert brief == {name: brief[name] for name in values if name in brief}
    assert not any("@" in name or "head" in name for name in brief)


def test_every_other_kind_of_query_is_held_against_patch_queries():
    total = Accumulator()
    for token, value in (("cls", 0.9), ("register", 0.7), ("fixed_patch", 0.6), ("patch", 0.4)):
        total.add(("student", token, "entropy", 1), torch.full((2, 1, 1), value))
        total.add(("influence", token, "entropy", 0), torch.full((2, 1, 1), value / 2))
    found = total.metrics((1,))
    for contrast, value in (
        ("contrast", 0.5),
        ("register_contrast", 0.3),
        ("fixed_patch_contrast", 0.2),
    ):
        assert found[f"student/{contrast}/entropy"] == pytest.approx(value)
        assert found[f"student/{contrast}/entropy/final_block"] == pytest.approx(value)
        assert found[f"influence/{contrast}/entropy"] == pytest.approx(value / 2)
        assert f"influence/{contrast}/entropy/final_block" not in found
    assert not any("patch_contrast/" in name and "fixed" not in name for name in found)


def test_a_contrast_is_over_the_heads_in_which_both_have_a_value():
    total = Accumulator()
    cls = torch.tensor([[0.9], [math.nan], [0.7]])
    patch = torch.tensor([[0.8], [0.1], [math.nan]])
    total.add(("globality", "cls", "entropy", 1), cls[None])
    total.add(("globality", "patch", "entropy", 1), patch[None])
    found = total.metrics((1,))
    assert found["globality/cls/entropy"] == pytest.approx(0.8)
    assert found["globality/patch/entropy"] == pytest.approx(0.45)
    assert found["globality/contrast/entropy"] == pytest.approx(0.1)


def test_primary_layers_that_the_network_lacks_give_no_primary_metric():
    values = known().metrics((7, 8), by_head=("globality",))
    assert "globality/cls/entropy" not in values
    assert "globality/contrast/entropy" not in values
    assert "globality/cls/entropy/head_max" not in values
    assert values["globality/contrast/entropy/final_block"] == pytest.approx(31.5 - 3.15)


def test_heads_count_alike_however_many_values_they_have():
    total = Accumulator()
    values = torch.full((1, 2, 99), math.nan)
    values[0, 0, 0], values[0, 1] = 0.2, 0.4
    total.add(("globality", "patch", "entropy", 1), values)
    assert total.undefined.total() == 98
    assert total.metrics((1,))["globality/patch/undefined"] == 98 / 198
    assert total.metrics((1,))["globality/patch/entropy"] == pytest.approx(0.3)


@pytest.mark.parametrize("nothing", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_counted_and_in_no_sum(nothing):
    total = Accumulator()
    total.add(("globality", "sink", "value_norm", 1), torch.tensor([[[nothing]], [[2.0]]]))
    total = total.merge(total)
    assert total.undefined == {("globality", "sink"): 2}
    assert total.metrics((1,))["globality/sink/undefined"] == 0.5
    assert total.metrics((1,))["globality/sink/value_norm"] == 2


def test_values_of_nothing_give_no_infinite_sink():
    tokens = layout((3, 3))
    layer = random_layer(0, 2, 2, tokens.count)
    values = layer.values.clone()
    values[:, :, 3:] = 0  # most tokens write nothing: the median norm is 0
    found = measured(tokens, dataclasses.replace(layer, values=values))
    assert "globality/sink/value_norm" not in found.metrics((1,))
    assert found.undefined.total() == found.undefined["globality", "sink"] == 4
