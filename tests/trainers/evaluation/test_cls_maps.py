"""Maps of what [CLS] attends to in a few held-out images, beside the metrics of an evaluation."""

import pytest
import torch

from trainers.config import override
from trainers.data.augment import normalize
from trainers.evaluation.cls_maps import ClsMaps, shown_pixels
from trainers.evaluation.evaluate import batches, evaluate
from trainers.globality.causal import measure_causes
from trainers.globality.rollout import rollout
from trainers.globality.tokens import Tokens, stratified
from trainers.system.world import World
from trainers.training.state import TrainState

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
SIDE = 4


def fresh(config):
    return TrainState.fresh(config, ALONE, 10)


@pytest.fixture(scope="module")
def config(tiny):
    return override(
        tiny,
        {
            "model.depth": 2, "model.registers": 1, "model.initial_deviation": 0.3,
            "evaluation.causal_images": 3, "evaluation.probes": False,
        },
    )  # fmt: skip


def test_maps_are_what_softmax_of_queries_and_keys_gives(config, images):
    state, layers, maps = fresh(config), [], {}
    evaluate(state, images, config, maps=maps)
    ((crops, draws, _),) = batches(images, images.shuffled(images.test)[:8], config, ALONE.device)
    with torch.no_grad():
        state.teacher.eval()(crops, draws, observe=layers.append)
    for block, layer in enumerate(layers):
        scores = layer.queries @ layer.keys.transpose(2, 3) * layer.queries.shape[-1] ** -0.5
        attention = scores.softmax(-1)[:, :, 0, 2:]
        heads = (attention / attention.sum(-1, keepdim=True)).unflatten(-1, (SIDE, SIDE))
        assert torch.allclose(maps["attention"][block], heads.mean(1), atol=1e-6)
    assert torch.allclose(maps["heads"], heads.transpose(0, 1), atol=1e-6)
    rolled = rollout([(one.queries, one.keys) for one in layers], torch.tensor([0]), 16.0)[:, 0, 2:]
    rolled = rolled / rolled.sum(-1, keepdim=True)
    assert torch.allclose(maps["rollout"].flatten(1), rolled, atol=1e-6)
    grid = (SIDE, SIDE)
    queries = stratified(grid, 64, ALONE.device)
    tokens = Tokens(grid=grid, has_cls=True, registers=1, patch_queries=queries, fixed_patch=None)
    first = [(crops[:3], draws.rows(torch.arange(3)))]
    _, moved, _ = measure_causes(state.teacher, first, tokens, replacement="mean", seed=config.seed)
    moved = moved[:, 0] / moved[:, 0].sum(-1, keepdim=True)
    assert torch.allclose(maps["influence"].flatten(1), moved, atol=1e-5)


def test_maps_change_no_metric(config, images):
    assert evaluate(fresh(config), images, config, maps={}) == evaluate(
        fresh(config), images, config
    )


@pytest.mark.parametrize(
    "change",
    [{"evaluation.batch_size": 3}, {"evaluation.attention_memory": 1e-6}],
    ids=["in several batches", "in little memory"],
)
def test_maps_do_not_depend_on_how_images_come(config, images, change):
    whole, parts = {}, {}
    evaluate(fresh(config), images, config, maps=whole)
    evaluate(fresh(config), images, override(config, change), maps=parts)
    assert parts.keys() == whole.keys()
    for name, values in whole.items():
        assert torch.allclose(parts[name], values, atol=1e-5), name


def test_an_evaluation_that_is_not_thorough_has_attention_alone(config, images):
    maps = {}
    evaluate(fresh(config), images, config, thorough=False, maps=maps)
    assert maps.keys() == {"attention", "heads", "pixels"}


def test_images_are_kept_beside_the_first_maps_alone(tiny, images):
    state, first, last = fresh(tiny), {}, {}
    evaluate(state, images, tiny, thorough=False, maps=first)
    state.step = tiny.steps
    evaluate(state, images, tiny, thorough=False, maps=last)
    assert ("pixels" in first, "pixels" in last) == (True, False)


def test_a_network_without_cls_has_no_maps_but_images(tiny, images):
    config = override(tiny, {"model.cls": False, "loss.cls": 0.0, "loss.patches": 1.0})
    maps = {}
    evaluate(fresh(config), images, config, maps=maps)
    assert maps.keys() == {"attention", "heads", "pixels"}
    assert maps["attention"].shape == maps["heads"].shape == (0, 8, SIDE, SIDE)


def test_a_network_without_cls_keeps_no_influence_of_another_token(tiny, images):
    config = override(tiny, {"model.cls": False, "loss.cls": 0.0, "loss.patches": 1.0})
    queries = stratified((SIDE, SIDE), 64, ALONE.device)
    tokens = Tokens(
        grid=(SIDE, SIDE), has_cls=False, registers=0, patch_queries=queries, fixed_patch=None
    )
    shown = ClsMaps(tokens, config, thorough=True)
    shown.see_influence(2, torch.arange(2), torch.ones(2, SIDE * SIDE))
    assert not shown._parts


def test_the_images_that_are_shown_are_evaluation_crops_no_larger_than_they_need_be(tiny, images):
    places = images.shuffled(images.test)[:5]
    small = shown_pixels(images, places, 16)
    assert small.dtype == torch.uint8
    ((crops, *_),) = batches(images, places, tiny, ALONE.device)
    assert torch.equal(normalize(small.movedim(-1, 1)), crops)
    large = shown_pixels(images, places, 112)
    assert large.shape == (5, 96, 96, 3)
    assert large.float().mean((1, 2, 3)) == pytest.approx(small.float().mean((1, 2, 3)), abs=3)
