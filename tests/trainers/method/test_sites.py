"""Where the loss sits decides which parameters it moves, and every one of them trains."""

from dataclasses import replace

import pytest
import torch

from trainers.config import TrainConfig, override
from trainers.data.augment import Views, normalize
from trainers.method.losses import koleo
from trainers.method.site import all_sites, sites
from trainers.model.vit import Features
from trainers.system.world import World
from trainers.training.state import TrainState
from trainers.training.step import Batch, needs_patches, update

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
BASE = override(
    TrainConfig(),
    {
        "batch_size": 8, "model.width": 24, "model.heads": 2, "model.depth": 2,
        "model.registers": 1, "model.initial_deviation": 0.1, "augment.local_crops": 2,
        "head.hidden": 16, "head.bottleneck": 8, "head.prototypes": 16,
        "evaluation.globality_layers": [1], "steps": 1000,
        "optimizer.warmup_steps": 0, "optimizer.learning_rate": 3e-3,
        "optimizer.freeze_last_layer_steps": 0, "optimizer.weight_decay": 0.0,
        "optimizer.weight_decay_end": 0.0, "teacher.kind": "frozen", "targets.kind": "none",
    },
)  # fmt: skip
SITES = ("cls", "patches", "dense", "register_token", "fixed_patch", "masked", "labels", "koleo")


def only(site):
    return override(BASE, {"loss.cls": 0.0, f"loss.{site}": 1.0})


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def crops(count, side):
        shape = (count * 8, 3, side, side)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    return Batch(
        views=Views(
            global_crops=crops(2, 16),
            local_crops=crops(2, 8),
            digest=torch.zeros(8, dtype=torch.int64),
        ),
        identifiers=torch.arange(8),
        epochs=torch.zeros(8, dtype=torch.int64),
        labels=torch.arange(8) % 4,
    )


@pytest.mark.parametrize("site", SITES)
def test_every_loss_alone_trains(site):
    config = only(site)
    state = TrainState.fresh(config, ALONE, classes=4)
    losses = [update(state, batch(), config, ALONE).loss for _ in range(40)]
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.05 * abs(sum(losses[:5]))


def test_without_a_loss_nothing_moves():
    config = override(BASE, {"loss.cls": 0.0})
    state = TrainState.fresh(config, ALONE)
    before = [parameter.clone() for parameter in state.student.parameters()]
    for _ in range(3):
        assert update(state, batch(), config, ALONE).loss == 0
    assert state.step == 3
    for one, other in zip(before, state.student.parameters(), strict=True):
        assert torch.equal(one, other)


def gradients(site):
    config = only(site)
    state = TrainState.fresh(config, ALONE, classes=4)
    update(state, batch(), config, ALONE)
    return {name: p.grad for name, p in state.student.named_parameters()}


def test_under_a_cls_loss_no_gradient_reaches_what_only_patches_of_the_last_block_use():
    # With one image-independent token asked for, keys of patches still get one.
    found = gradients("cls")
    assert found["backbone.blocks.1.contract.weight"].abs().sum() > 0
    assert found["head.prototypes"].abs().sum() > 0
    assert found["backbone.position"].abs().sum() > 0


@pytest.mark.parametrize(("site", "token"), [("cls", "registers"), ("register_token", "cls")])
def test_the_other_tokens_still_take_part_in_attention(site, token):
    assert gradients(site)[f"backbone.{token}"].abs().sum() > 0


@pytest.mark.parametrize("site", ["labels", "koleo"])
def test_losses_without_a_head_leave_the_head_alone(site):
    assert gradients(site)["head.prototypes"] is None


def test_sites_are_those_with_weight():
    both = override(BASE, {"loss.patches": 0.5})
    weights = {name: site.weight for name, site in sites(both.loss).items()}
    assert weights == {"cls": 1.0, "patches": 0.5}
    assert needs_patches(both)
    assert not needs_patches(override(BASE, {"loss.register_token": 0.5}))


@pytest.mark.parametrize(
    ("place", "expected"),
    [((-1.0, -1.0), 0), ((-1.0, 1.0), 5), ((1.0, 1.0), 23), ((0.0, 0.0), 15), ((0.0, -0.4), 13)],
)
def test_a_fixed_patch_is_the_one_at_its_place(place, expected):
    tokens = torch.arange(25.0)[None, :, None]
    features = Features(tokens=tokens, grid=(4, 6), has_cls=True, registers_count=0)
    loss = override(BASE, {"loss.fixed_patch_place": list(place)}).loss
    # Token 0 is [CLS].
    for name in ("fixed_patch", "dense", "masked"):
        assert all_sites()[name](loss, 1.0).image(features).item() == expected + 1


def test_registers_are_read_after_cls():
    tokens = torch.arange(7.0)[None, :, None]
    features = Features(tokens=tokens, grid=(2, 2), has_cls=True, registers_count=2)
    register, mean_patch = (
        all_sites()[name](BASE.loss, 1.0).image(features).item()
        for name in ("register_token", "patches")
    )
    assert register == 1
    assert mean_patch == pytest.approx((3 + 4 + 5 + 6) / 4)


@pytest.mark.parametrize("views", [1, 3])
def test_koleo_is_summed_over_global_views_each_by_itself(views):
    config = override(only("koleo"), {"augment.global_crops": views})
    state = TrainState.fresh(config, ALONE)
    crops = batch().views.local_crops.repeat(2, 1, 2, 2)[: views * 8]
    seen = replace(batch(), views=replace(batch().views, global_crops=crops))
    with torch.no_grad():
        each = state.student(normalize(crops)).cls.chunk(views)
    expected = sum(koleo(view).item() for view in each)
    assert update(state, seen, config, ALONE).loss == pytest.approx(expected, rel=1e-5)


def test_koleo_alone_spreads_mean_patches_where_there_is_no_cls():
    config = override(only("koleo"), {"model.cls": False})
    state = TrainState.fresh(config, ALONE)
    losses = [update(state, batch(), config, ALONE).loss for _ in range(20)]
    assert losses[-1] < losses[0] - 0.05


def test_the_token_of_hidden_patches_starts_at_zero_and_learns():
    config = only("masked")
    state = TrainState.fresh(config, ALONE)
    assert not state.student.backbone.mask.any()
    update(state, batch(), config, ALONE)
    assert state.student.backbone.mask.any()
