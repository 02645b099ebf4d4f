"""Mean attention distance, mutual information and rollout as public code defines them.

The definitions are those of naver-ai/cl-vs-mim (`self_attention_analysis.ipynb`) and of
sayakpaul/probing-vits (`mean-attention-distance-1k.ipynb`), written again in NumPy, on the
attention that timm itself computes.
"""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import timm
import torch
from timm.layers import set_fused_attn
from torch import Tensor, nn

from trainers.adapters.timm_models import TimmBackbone
from trainers.globality.functionals import conditional, mean_distance
from trainers.globality.rollout import RolloutStatistics, rollout
from trainers.globality.statistics import AttentionStatistics
from trainers.globality.tokens import Tokens
from trainers.model.vit import Layer

torch.set_num_threads(1)

GAIN = {"vit_tiny_patch16_224": 4.0, "vit_small_patch16_dinov3": 2.5}
SIDE, PATCH = 4, 16
PATCHES = SIDE**2


def vit(name: str, *, fused: bool) -> nn.Module:
    """A small random ViT of timm whose attention is far from uniform."""
    set_fused_attn(fused)
    try:
        torch.manual_seed(0)
        model = timm.create_model(
            name, num_classes=0, img_size=SIDE * PATCH, dynamic_img_size=True, depth=3
        )
    finally:
        set_fused_attn(True)
    with torch.no_grad():
        for block in model.blocks:
            assert block.attn.fused_attn is fused
            block.attn.qkv.weight.mul_(GAIN[name])
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=list(GAIN), ids=["vit", "eva"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, SIDE * PATCH, SIDE * PATCH, generator=generator)


@pytest.fixture(scope="module")
def theirs(name: str, images: Tensor) -> np.ndarray:
    """Attention [L, B, H, T, T] as timm makes it, float64."""
    model = vit(name, fused=False)
    caught: list[Tensor] = []
    for block in model.blocks:
        block.attn.attn_drop.register_forward_hook(lambda _, __, made: caught.append(made))
    model.forward_features(images)
    found = torch.stack(caught).double().numpy()
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    return found


@pytest.fixture(scope="module")
def backbone(name: str) -> TimmBackbone:
    return TimmBackbone(vit(name, fused=True), name)


@pytest.fixture(scope="module")
def ours(backbone: TimmBackbone, images: Tensor) -> list[Layer]:
    layers: list[Layer] = []
    backbone(images, observe=layers.append)
    return layers


def layout(backbone: TimmBackbone) -> Tokens:
    return Tokens(
        grid=(SIDE, SIDE),
        has_cls=backbone.has_cls,
        registers=backbone.registers_count,
        patch_queries=torch.arange(PATCHES),
        fixed_patch=None,
    )


@pytest.fixture(scope="module")
def means(backbone: TimmBackbone, ours: list[Layer]) -> dict:
    statistics = AttentionStatistics(
        layout(backbone), memory=16.0, norm_weighted=True, distances=True
    )
    for layer in ours:
        statistics(layer)
    return statistics.total.means()


def pixel_distances() -> np.ndarray:
    """16 ‖(Δrow, Δcolumn)‖ of every pair of patches."""
    found = np.zeros((PATCHES, PATCHES))
    for i in range(PATCHES):
        for j in range(PATCHES):
            found[i, j] = PATCH * np.linalg.norm([i // SIDE - j // SIDE, i % SIDE - j % SIDE])
    return found


def without_prefix(attention: np.ndarray) -> np.ndarray:
    return attention[..., -PATCHES:, -PATCHES:]


def of_cl_vs_mim(attention: np.ndarray) -> np.ndarray:
    """Their mean attention distance, pixels: patches among themselves, normalised again."""
    kept = without_prefix(attention) + 1e-32
    kept = kept / kept.sum(-1, keepdims=True)
    return (kept * pixel_distances()).sum(-1).mean(-1)


def of_probing_vits(attention: np.ndarray) -> np.ndarray:
    """Their mean attention distance, pixels: [CLS] cut off, nothing normalised again."""
    return (without_prefix(attention) * pixel_distances()).sum(-1).mean(-1)


def their_information(attention: np.ndarray) -> np.ndarray:
    """Normalised mutual information of Park et al. (2023), with their 1e-8."""
    kept = without_prefix(attention) + 1e-8
    kept = kept / kept.sum(-1, keepdims=True)
    queries = np.full(PATCHES, 1 / PATCHES)
    keys = (kept * queries[:, None]).sum(-2)
    ratio = kept / keys[..., None, :]
    information = (queries[:, None] * kept * np.log(ratio)).sum((-2, -1))
    of_queries, of_keys = -(queries * np.log(queries)).sum(), -(keys * np.log(keys)).sum(-1)
    return information / np.sqrt(of_queries * of_keys)


def our_attention(layer: Layer) -> Tensor:
    logits = layer.queries @ layer.keys.transpose(2, 3) / math.sqrt(layer.queries.shape[-1])
    return logits.softmax(-1)


def layers_of(theirs: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    return enumerate(theirs, start=1)


def test_these_models_attend_neither_evenly_nor_to_single_patches(theirs: np.ndarray):
    information = their_information(theirs)
    assert information.min() > 0.02
    assert information.max() < 0.98
    assert of_cl_vs_mim(theirs).std() > 1


def test_queries_and_keys_of_a_layer_make_the_attention_of_timm(
    theirs: np.ndarray, ours: list[Layer]
):
    for layer, attention in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our_attention(layer).numpy(), attention, atol=1e-5)


def test_conditional_maps_give_the_attention_distance_of_probing_vits(
    theirs: np.ndarray, ours: list[Layer], backbone: TimmBackbone
):
    places = torch.arange(PATCHES)
    for layer, attention in zip(ours, theirs, strict=True):
        rows = our_attention(layer)[:, :, -PATCHES:]
        maps, mass = conditional(rows, places, layout(backbone).first)
        # To the query itself is no distance, so its share is all that the maps leave out.
        found = PATCH * (mass * mean_distance(maps, (SIDE, SIDE), places)).mean(-1)
        np.testing.assert_allclose(found.numpy(), of_probing_vits(attention), rtol=1e-4)


def test_locality_is_the_attention_distance_of_cl_vs_mim_against_that_of_shared_maps(
    theirs: np.ndarray, means: dict
):
    for number, attention in layers_of(theirs):
        kept = without_prefix(attention)
        kept = kept / kept.sum(-1, keepdims=True)
        shared = (kept @ pixel_distances().mean(0)).mean(-1)
        expected = (1 - of_cl_vs_mim(attention) / shared).mean(0)
        found = means["globality", "patch", "locality", number]
        assert found == pytest.approx(list(expected), abs=1e-5)


def test_attention_distance_is_that_of_cl_vs_mim(theirs: np.ndarray, means: dict):
    for number, attention in layers_of(theirs):
        expected = of_cl_vs_mim(attention).mean(0) / PATCH
        found = means["globality", "patch", "attention_distance", number]
        assert found == pytest.approx(list(expected), rel=1e-5)


def test_mutual_information_is_that_of_cl_vs_mim(theirs: np.ndarray, means: dict):
    for number, attention in layers_of(theirs):
        expected = their_information(attention).mean(0)
        found = means["globality", "patch", "mutual_information", number]
        assert found == pytest.approx(list(expected), abs=1e-4)


def test_norm_weighted_mass_is_that_of_what_timm_adds_up(
    theirs: np.ndarray, ours: list[Layer], means: dict, backbone: TimmBackbone
):
    first = layout(backbone).first
    for (number, attention), layer in zip(layers_of(theirs), ours, strict=True):
        proj = backbone.model.blocks[number - 1].attn.proj.weight.double().numpy()
        values = layer.values.double().numpy()
        heads, width = values.shape[1], values.shape[3]
        sizes = np.stack(
            [
                np.linalg.norm(
                    values[:, head] @ proj[:, head * width : (head + 1) * width].T, axis=-1
                )
                for head in range(heads)
            ],
            axis=1,
        )
        weighted = attention[:, :, 0] * sizes
        expected = (weighted[..., first:].sum(-1) / weighted.sum(-1)).mean(0)
        found = means["norm_weighted", "cls", "patch_mass", number]
        assert found == pytest.approx(list(expected), abs=1e-5)


def test_rollout_is_the_product_of_the_matrices_of_timm(theirs: np.ndarray, ours: list[Layer]):
    tokens = theirs.shape[-1]
    expected = np.eye(tokens)
    for attention in theirs:
        expected = (0.5 * attention.mean(1) + 0.5 * np.eye(tokens)) @ expected
    pairs = [(layer.queries, layer.keys) for layer in ours]
    for memory in (1e-4, 16.0):
        found = rollout(pairs, torch.arange(tokens), memory)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_models_with_and_without_fused_attention_measure_the_same(
    name: str, backbone: TimmBackbone, images: Tensor
):
    other = TimmBackbone(vit(name, fused=False), name)
    found = []
    for model in (backbone, other):
        attention = AttentionStatistics(layout(model), memory=16.0, norm_weighted=True)
        rolled = RolloutStatistics(layout(model), memory=16.0)
        for observer in (attention, rolled):
            model(images, observe=observer)
        rolled.finish()
        found.append(attention.total.merge(rolled.total).metrics((1, 2), by_head=("globality",)))
    assert len(found[0]) > 200
    assert found[0] == pytest.approx(found[1], abs=1e-5)
