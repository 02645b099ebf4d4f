"""Rollout against the product of explicit matrices."""

import math

import pytest
import torch
from torch import Tensor

from tests.trainers.globality.observed import layout, part, random_layer
from trainers.adapters.timm_models import open_timm
from trainers.globality.rollout import RolloutStatistics, rollout
from trainers.model.vit import Layer

torch.set_num_threads(1)


def explicit(layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """R = Ã_L … Ã_1 of all tokens, [B, T, T]."""
    product: Tensor | None = None
    for queries, keys in layers:
        logits = queries.double() @ keys.double().transpose(2, 3) / math.sqrt(queries.shape[-1])
        mixed = torch.softmax(logits, -1).mean(1)
        step = 0.5 * mixed + 0.5 * torch.eye(mixed.shape[-1])
        product = step if product is None else step @ product
    assert product is not None
    return product


@pytest.mark.parametrize("memory", [1e-6, 1e-3, 16.0])
def test_rows_are_those_of_the_product_of_all_layers_in_any_memory(memory):
    layers = [(one.queries, one.keys) for one in (random_layer(i, 3, 2, 13) for i in range(4))]
    asked = torch.tensor([0, 5, 12])
    found = rollout(layers, asked, memory)
    torch.testing.assert_close(found.double(), explicit(layers)[:, asked], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 3))


@pytest.mark.parametrize(("tokens", "layers"), [(5, 3), (17, 1), (9, 6)])
def test_uniform_attention_leaves_of_each_token_a_share_that_halves_by_layer(tokens, layers):
    same = torch.ones(1, 2, tokens, 4)
    found = rollout([(same, same)] * layers, torch.arange(tokens), 16.0)[0]
    uniform = torch.full((tokens, tokens), 1 / tokens)
    expected = uniform + 2.0**-layers * (torch.eye(tokens) - uniform)
    torch.testing.assert_close(found, expected)
    if (tokens, layers) == (5, 3):
        assert found[0].tolist() == pytest.approx([0.3, 0.175, 0.175, 0.175, 0.175])


def test_tokens_that_attend_to_themselves_stay_themselves():
    alone = 1e3 * torch.eye(6)[None, None]
    found = rollout([(alone, torch.eye(6)[None, None])] * 3, torch.arange(6), 16.0)
    torch.testing.assert_close(found[0], torch.eye(6))


def test_rollout_of_a_timm_model_is_the_product_of_its_explicit_matrices():
    torch.manual_seed(0)
    backbone = open_timm("vit_tiny_patch16_224", image_size=64)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    layers: list[Layer] = []
    backbone(images, observe=layers.append)
    pairs = [(layer.queries, layer.keys) for layer in layers]
    found = rollout(pairs, torch.arange(17), 16.0)
    torch.testing.assert_close(found.double(), explicit(pairs), rtol=1e-5, atol=1e-6)


def test_autocast_around_the_measurement_changes_nothing():
    tokens = layout((3, 4), registers=1, fixed_patch=3)
    found = []
    for precise in (True, False):
        statistics = RolloutStatistics(tokens, memory=16.0)
        for i in range(2):
            statistics(random_layer(i, 2, 2, tokens.count, number=i + 1))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not precise):
            statistics.finish()
        found.append(statistics.total.means())
    assert found[0] == found[1]


def test_each_batch_is_measured_and_forgotten():
    tokens = layout((2, 3), registers=1, fixed_patch=3)
    whole, parts = (RolloutStatistics(tokens, memory=16.0) for _ in range(2))
    layers = [random_layer(i, 4, 2, tokens.count, number=i + 1) for i in range(2)]
    for layer in layers:
        whole(layer)
    whole.finish()
    for images in (slice(0, 1), slice(1, 4)):
        for layer in layers:
            parts(part(layer, images))
        parts.finish()
        assert parts.kept == []
    found, expected = parts.total.metrics(()), whole.total.metrics(())
    assert found == pytest.approx(expected, abs=1e-5)
    assert {"rollout/cls/gyration", "rollout/register/entropy", "rollout/patch/distance"} <= set(
        found
    )
