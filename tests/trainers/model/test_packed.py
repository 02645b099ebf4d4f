"""Images that go through the blocks together come out as they do one size at a time."""

import pytest
import torch

from tests.trainers.method.test_sites import BASE, batch
from trainers.config import override
from trainers.errors import ConfigError
from trainers.model.packed import packed
from trainers.model.vit import VisionTransformer, initialise
from trainers.randomness.forward_draws import ForwardDraws
from trainers.system.world import World
from trainers.training.state import TrainState
from trainers.training.step import update

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
MODELS = [
    {},
    {"model.cls_position": "random", "model.registers": 0},
    {"model.patch_position": "rotary", "model.cls_position": "rotary", "model.width": 16},
    {"model.patch_position": "sincos", "model.cls_position": "none", "model.depth": 1},
]


@pytest.mark.parametrize("change", MODELS, ids=str)
@pytest.mark.parametrize("only_first", [False, True])
def test_packed_features_and_gradients_are_those_of_one_size_at_a_time(change, only_first):
    model = override(BASE, change).model
    generator = torch.Generator().manual_seed(0)
    backbone = VisionTransformer(model, 16, masks=True)
    initialise(backbone, 0, 0.1)

    def group(images, side):
        keep = torch.rand(images, model.depth, 2, generator=generator).round() * 2
        return torch.randn(images, 3, side, side, generator=generator), ForwardDraws(
            keep=keep,
            mask=torch.rand(images, 16, generator=generator) < 0.3 if side == 16 else None,
            cls_patch=torch.arange(images),
        )

    groups = [group(3, 16), group(5, 8)]
    found = []
    for features in (
        packed(backbone, groups, only_first=only_first),
        [backbone(images, draws, only_first=only_first) for images, draws in groups],
    ):
        backbone.zero_grad()
        sum(one.tokens.sin().sum() for one in features).backward()
        gradients = {name: p.grad for name, p in backbone.named_parameters()}
        found.append(([one.tokens for one in features], gradients))
    (tokens, gradients), (expected, others) = found
    torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-4, atol=1e-4, msg=name)


def test_gradients_of_all_sizes_come_together_in_one_copy():
    # Slices would each fill a gradient of the whole with zeros, to add them all.
    backbone = VisionTransformer(BASE.model, 16)
    initialise(backbone, 0, 0.1)
    groups = [(torch.randn(2, 3, side, side), ForwardDraws()) for side in (16, 8)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        sum(one.tokens.sum() for one in packed(backbone, groups)).backward()
    names = {one.key for one in seen.key_averages()}
    assert "SplitWithSizesBackward0" in names
    assert not names & {"SelectBackward0", "SliceBackward0"}


@pytest.mark.parametrize("change", [{}, {"loss.masked": 1.0, "model.drop_path": 0.3}], ids=str)
@pytest.mark.parametrize("how", [{}, {"compute.activation_checkpointing": True}], ids=str)
def test_packed_updates_are_those_of_one_size_at_a_time(change, how):
    losses = []
    for packs in (False, True):
        config = override(BASE, {**change, **how, "compute.packed": packs})
        state = TrainState.fresh(config, ALONE)
        losses.append([update(state, batch(step), config, ALONE).loss for step in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_shared_parameters_are_not_packed():
    with pytest.raises(ConfigError, match="packed and sharded do not go together"):
        override(BASE, {"compute.packed": True, "compute.sharded": True})
