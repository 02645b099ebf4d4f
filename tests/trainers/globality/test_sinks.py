"""Sinks by the published rule: on layers whose sinks are known, and against explicit matrices."""

import dataclasses
import math

import pytest
import torch

from tests.trainers.globality.observed import attending, layout, part, random_layer
from trainers.globality.sinks import DESCRIPTIONS, IMAGES, Sinks, stable_rank

GRID = (3, 4)


def found_of(tokens, *layers, memory=1.0):
    sinks = Sinks(tokens, memory=memory)
    for layer in layers:
        sinks(layer)
    return sinks.total.metrics((1,))


def explicit(layer):
    """Projected norm and stable rank by head, means over images, with whole matrices."""
    scores = layer.queries.double() @ layer.keys.double().transpose(2, 3)
    attention = torch.softmax(scores / math.sqrt(layer.queries.shape[-1]), -1)
    written = torch.einsum("bhtk,hkd->bhtd", layer.values.double(), layer.projection.double())
    output = attention @ written
    values = torch.linalg.svdvals(output)
    ranks = values.square().sum(-1) / values[..., 0].square()
    norms = written.norm(dim=-1)
    sink = attention.mean(2).argmax(-1, keepdim=True)
    lower = norms.sort(-1).values[..., (norms.shape[-1] - 1) // 2]
    return norms.gather(-1, sink)[..., 0] / lower, ranks


@pytest.mark.parametrize("registers", [0, 2])
def test_norm_and_rank_are_those_of_whole_matrices(registers):
    tokens = layout(GRID, registers=registers)
    layer = random_layer(1, 4, 3, tokens.count)
    norms, ranks = explicit(layer)
    found = found_of(tokens, layer)
    assert found["sinks/head/projected_norm"] == pytest.approx(float(norms.mean()), rel=1e-5)
    assert found["sinks/head/stable_rank"] == pytest.approx(float(ranks.mean()), rel=1e-5)


def sinking(on: int, tokens, mass: float = 0.9):
    """Attention of which one token receives `mass` from every query, the others the rest."""
    maps = torch.full((2, 1, tokens.count, tokens.count), (1 - mass) / (tokens.count - 1))
    maps[..., on] = mass
    return attending(maps)


@pytest.mark.parametrize(("on", "place"), [(0, "on_cls"), (2, "on_register"), (7, "on_patch")])
def test_a_sink_is_on_the_token_that_receives(on, place):
    tokens = layout(GRID, registers=2)
    found = found_of(tokens, sinking(on, tokens))
    assert found["sinks/head/share"] == 1
    for other in ("on_cls", "on_register", "on_patch"):
        assert found[f"sinks/head/{other}"] == float(other == place)


def test_no_token_that_receives_little_is_a_sink():
    tokens = layout(GRID)
    for mass, share in ((0.29, 0.0), (0.31, 1.0)):
        assert found_of(tokens, sinking(0, tokens, mass))["sinks/head/share"] == share


def test_a_sink_without_values_is_a_no_op_and_one_that_writes_everywhere_broadcasts():
    tokens = layout(GRID)
    layer = sinking(0, tokens)
    empty = layer.values.clone()
    empty[:, :, 0] *= 0.1
    found = found_of(tokens, dataclasses.replace(layer, values=empty))
    assert (found["sinks/head/no_op"], found["sinks/head/broadcast"]) == (1, 0)
    found = found_of(tokens, layer)
    assert (found["sinks/head/no_op"], found["sinks/head/broadcast"]) == (0, 1)
    # All rows are one: the rank is 1.
    assert found["sinks/head/stable_rank"] == pytest.approx(1)


def test_a_sink_beside_which_heads_write_much_else_does_not_broadcast():
    tokens = layout(GRID)
    # Of 13 tokens each gives a third to [CLS] and the rest to itself: 13 directions.
    maps = torch.eye(tokens.count) * (2 / 3)
    maps[:, 0] += 1 / 3
    found = found_of(tokens, attending(maps.expand(2, 1, -1, -1)))
    values = torch.linalg.svdvals(maps.double())
    expected = float(values.square().sum() / values[0].square())
    assert expected > 1.5
    assert found["sinks/head/share"] == 1
    assert found["sinks/head/stable_rank"] == pytest.approx(expected, rel=1e-5)
    assert found["sinks/head/broadcast"] == 0


def test_neither_memory_nor_batches_change_anything():
    tokens = layout(GRID, registers=1)
    layer = random_layer(2, 5, 2, tokens.count)
    whole = found_of(tokens, layer)
    parts = found_of(tokens, part(layer, slice(0, 2)), part(layer, slice(2, 5)), memory=1e-4)
    assert parts == pytest.approx(whole, rel=1e-6)


def test_a_sample_of_queries_stands_for_all():
    """Where patches attend alike, one of them tells all."""
    tokens = layout(GRID, queries=[5])
    layer = random_layer(3, 3, 2, tokens.count)
    alike = layer.queries.clone()
    alike[:, :, 1:] = alike[:, :, 1:2]
    layer = dataclasses.replace(layer, queries=alike)
    assert found_of(tokens, layer) == pytest.approx(found_of(layout(GRID), layer), rel=1e-5)


def test_the_first_images_alone_are_looked_at():
    tokens = layout((2, 2))
    layer = random_layer(4, IMAGES + 3, 1, tokens.count)
    sinks = Sinks(tokens, memory=1.0)
    sinks(part(layer, slice(0, 10)))
    sinks(part(layer, slice(10, None)))
    count, _ = sinks.total.values["sinks", "head", "share", 1]
    assert count.tolist() == [IMAGES]
    first = found_of(tokens, part(layer, slice(0, IMAGES)))
    assert sinks.total.metrics((1,)) == first


def test_keys_that_are_not_allowed_receive_nothing():
    tokens = layout((2, 2))
    layer = random_layer(5, 2, 1, tokens.count)
    allowed = torch.eye(tokens.count, dtype=torch.bool)
    found = found_of(tokens, dataclasses.replace(layer, allowed=allowed))
    written = torch.einsum("bhtk,hkd->bhtd", layer.values.double(), layer.projection.double())
    values = torch.linalg.svdvals(written)
    expected = (values.square().sum(-1) / values[..., 0].square()).mean()
    assert found["sinks/head/stable_rank"] == pytest.approx(float(expected), rel=1e-5)
    assert found["sinks/head/share"] == 0


def test_nothing_that_is_written_has_no_rank():
    assert stable_rank(torch.zeros(1, 3, 3), torch.eye(3)[None]).isnan().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_left_out(value):
    tokens = layout(GRID)
    layer = random_layer(7, 3, 2, tokens.count)
    broken = dataclasses.replace(layer, values=layer.values.clone())
    broken.values[1, :, 2, 0] = value
    found, known = found_of(tokens, broken), found_of(tokens, part(layer, [0, 2]))
    assert found["sinks/head/stable_rank"] == pytest.approx(known["sinks/head/stable_rank"])
    assert found["sinks/head/undefined"] > 0


def test_every_name_is_described():
    tokens = layout(GRID, registers=1)
    found = found_of(tokens, random_layer(6, 2, 2, tokens.count))
    plain = {name for name in found if name.startswith("sinks/") and name.count("/") == 2}
    assert plain == DESCRIPTIONS.keys()
