"""Shares of attention from each kind of token to each, against sums over explicit maps."""

import itertools

import pytest
import torch

from tests.trainers.globality.observed import attending, layout, random_layer
from trainers.globality.flows import DESCRIPTIONS, flows
from trainers.globality.statistics import AttentionStatistics

GRID = (3, 4)


def explicit(layer, tokens):
    """Means over images, queries and heads of sums of attention, from the definition."""
    scores = layer.queries.double() @ layer.keys.double().transpose(2, 3)
    attention = torch.softmax(scores / layer.queries.shape[-1] ** 0.5, -1)
    kinds = {"patch": range(tokens.first, tokens.count)}
    if tokens.has_cls:
        kinds["cls"] = range(1)
    if tokens.registers:
        kinds["register"] = range(int(tokens.has_cls), tokens.first)
    return {
        f"flow/{one}/to_{other}": attention[:, :, kinds[one]][..., kinds[other]].sum(-1).mean()
        for one, other in itertools.product(kinds, kinds)
    }


@pytest.mark.parametrize(("has_cls", "registers"), [(True, 0), (True, 3), (False, 2), (False, 0)])
def test_they_are_sums_of_attention(has_cls, registers):
    tokens = layout(GRID, has_cls=has_cls, registers=registers)
    layer = random_layer(0, 5, 2, tokens.count)
    statistics = AttentionStatistics(tokens, memory=1.0)
    statistics(layer)
    found = flows(statistics.total, tokens).metrics((1,))
    expected = explicit(layer, tokens)
    contrasts = {name for name in found if "contrast/" in name and name.count("/") == 2}
    assert {name for name in found if name in DESCRIPTIONS} == expected.keys() | contrasts
    assert contrasts <= DESCRIPTIONS.keys()
    for name in contrasts:
        one = "cls" if name.startswith("flow/contrast") else "register"
        to = name.rsplit("/", 1)[1]
        difference = expected[f"flow/{one}/{to}"] - expected[f"flow/patch/{to}"]
        assert found[name] == pytest.approx(float(difference), abs=1e-6)
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), abs=1e-6), name
    for one in ("cls", "register", "patch"):
        shares = [found[name] for name in expected if name.startswith(f"flow/{one}/")]
        assert not shares or sum(shares) == pytest.approx(1)


def test_uniform_attention_flows_as_tokens_are_many():
    tokens = layout(GRID, registers=3)
    statistics = AttentionStatistics(tokens, memory=1.0)
    statistics(attending(torch.full((2, 1, 16, 16), 1 / 16)))
    found = flows(statistics.total, tokens).metrics((1,))
    for one in ("cls", "register", "patch"):
        assert found[f"flow/{one}/to_cls"] == pytest.approx(1 / 16, abs=1e-6)
        assert found[f"flow/{one}/to_register"] == pytest.approx(3 / 16, abs=1e-6)
        assert found[f"flow/{one}/to_patch"] == pytest.approx(12 / 16, abs=1e-6)


def test_only_attention_of_the_teacher_flows():
    tokens = layout(GRID)
    statistics = AttentionStatistics(tokens, memory=1.0, group="shuffled")
    statistics(random_layer(0, 2, 2, tokens.count))
    assert not flows(statistics.total, tokens).values
