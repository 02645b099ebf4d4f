"""Small crops for a first part of the run, then full ones."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.trainers.method.test_sites import BASE, batch
from trainers.config import TrainConfig, override
from trainers.config.recipe import recipe
from trainers.config.stages import augment_of_step, halved
from trainers.data.augment import Views
from trainers.errors import ConfigError
from trainers.metrics import OF_THE_MACHINE
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.loop import train
from trainers.training.operations import operations
from trainers.training.pieces import pieces
from trainers.training.state import TrainState
from trainers.training.step import Batch, update

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def run(config, images, reporter, folder, resume_from=None):
    return train(
        config,
        images=images,
        world=ALONE,
        reporter=reporter,
        checkpoints=folder,
        resume_from=resume_from,
    )


def without_times(records):
    return [
        (step, {k: v for k, v in metrics.items() if not k.startswith(OF_THE_MACHINE)})
        for step, metrics in records
    ]


def small(seen):
    """A batch with every second pixel of its crops."""
    views = seen.views
    return Batch(
        views=Views(
            global_crops=views.global_crops[:, :, ::2, ::2].contiguous(),
            local_crops=views.local_crops[:, :, ::2, ::2].contiguous(),
            digest=views.digest,
        ),
        identifiers=seen.identifiers,
        epochs=seen.epochs,
        labels=seen.labels,
    )


@pytest.mark.parametrize(
    ("share", "sides"),
    [
        (0.0, [(16, 8)] * 8),
        (0.75, [(8, 4)] * 6 + [(16, 8)] * 2),
        (0.3, [(8, 4)] * 2 + [(16, 8)] * 6),
        (1.0, [(8, 4)] * 8),
    ],
)
def test_crops_have_half_their_side_in_that_share_of_the_steps(share, sides):
    config = override(TrainConfig(), {"steps": 8, "augment.small_share": share})
    seen = [augment_of_step(config, step) for step in range(8)]
    assert [(one.global_size, one.local_size) for one in seen] == sides
    sizes = {"global_size": 16, "local_size": 8}
    assert all(one.model_copy(update=sizes) == config.augment for one in seen)


@pytest.mark.slow
def test_the_first_stage_sees_the_crops_of_a_run_at_half_size(tiny, images, recorder, tmp_path):
    chains = []
    for number, change in enumerate(
        [
            {"augment.small_share": 0.5},
            {"augment.global_size": 8, "augment.local_size": 4},
        ]
    ):
        seen = recorder()
        run(override(tiny, change), images, seen, tmp_path / str(number))
        chains.append([m["data/chain"] for _, m in seen.records if "data/chain" in m])
    two_stages, half = chains
    assert two_stages[:3] == half[:3]
    assert all(one != other for one, other in zip(two_stages[3:], half[3:], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {
            "loss.masked": 0.5, "loss.mask_kind": "block", "loss.dense": 0.2, "loss.labels": 0.1,
            "model.registers": 1, "model.drop_path": 0.3, "model.cls_position": "random",
            "augment.shuffle": "patches", "compute.packed": True, "compute.accumulate": 2,
        },
    ],
    ids=["plain", "chance everywhere"],
)  # fmt: skip
@pytest.mark.parametrize("every", [2, 3, 4])
def test_a_run_resumed_before_at_or_behind_the_border_equals_one_that_never_stopped(
    tiny, images, recorder, tmp_path, change, every
):
    # The border is at step 3.
    config = override(tiny, change | {"augment.small_share": 0.5, "checkpoint_every": every})
    whole = recorder()
    expected = run(config, images, whole, tmp_path / "whole")

    class Killed(recorder):
        def report(self, step, metrics, *, checkpoint=None):
            super().report(step, metrics, checkpoint=checkpoint)
            if step == every + 1:
                raise InterruptedError

    killed, rest = Killed(), recorder()
    with pytest.raises(InterruptedError):
        run(config, images, killed, tmp_path / "cut")
    saved = checkpoint.newest(tmp_path / "cut")
    assert checkpoint.saved_step(saved) == every
    assert run(config, images, rest, tmp_path / "cut", resume_from=saved) == expected
    kept = [record for record in killed.records if record[0] <= every]
    assert without_times(kept + rest.records) == without_times(whole.records)
    ends = [checkpoint.file_of(tmp_path / name, 6).read_bytes() for name in ("cut", "whole")]
    assert ends[0] == ends[1]


def test_masks_fit_small_crops_and_cls_wanders_over_the_full_grid():
    config = override(BASE, {"loss.masked": 1.0, "model.cls_position": "random"})
    state = TrainState.fresh(config, ALONE)
    for seen, patches in ((batch(), 16), (small(batch()), 4)):
        grid = seen.views.grid(config.model.patch_size)
        (piece,) = pieces(seen.identifiers, seen.epochs, config, grid, ALONE.device)
        assert piece.global_views.mask.shape == (16, patches)
        for draws in (piece.teacher, piece.global_views, piece.local_views):
            assert 4 <= draws.cls_patch.max() < 16
        assert not update(state, seen, config, ALONE).failure


@pytest.mark.parametrize("place", ["learned", "sincos", "rotary"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_loss_trains_at_both_sizes_whatever_positions_are(place, packed):
    sites = ("patches", "dense", "register_token", "fixed_patch", "masked", "labels", "koleo")
    cls_position = {"learned": "tied", "sincos": "sincos", "rotary": "rotary"}[place]
    config = override(
        BASE,
        {
            "model.patch_position": place, "model.cls_position": cls_position,
            "compute.packed": packed, "loss.mask_kind": "block",
            **{f"loss.{site}": 0.5 for site in sites},
        },
    )  # fmt: skip
    state = TrainState.fresh(config, ALONE, classes=4)
    losses = [
        update(state, seen, config, ALONE)
        for seen in [small(batch())] * 15 + [batch()] * 15
    ]  # fmt: skip
    assert not any(one.failure for one in losses)
    assert losses[14].loss < losses[0].loss
    assert losses[29].loss < losses[15].loss


@pytest.mark.parametrize("change", [{}, {"loss.cls": 0.0, "loss.dense": 1.0}], ids=["cls", "dense"])
def test_an_update_counts_as_the_mean_over_the_run(change):
    config = override(BASE, change | {"augment.small_share": 0.25})
    state = TrainState.fresh(config, ALONE)
    counted = []
    for seen in (small(batch()), batch()):
        with FlopCounterMode(display=False) as counter:
            update(state, seen, config, ALONE)
        counted.append(counter.get_total_flops() / 8)
    found = operations(config, 10)
    assert [found.small, found.full] == pytest.approx(counted, rel=0.1)
    assert found.update == 0.25 * found.small + 0.75 * found.full
    assert found.full == operations(override(config, {"augment.small_share": 0.0}), 10).update


@pytest.mark.slow
def test_the_recipe_takes_the_operations_that_it_says():
    name = "dino_vit_small_16"
    plain, two_stage = recipe(name), recipe(f"{name}_two_stage")
    sides = halved(two_stage.augment)
    assert (sides.global_size, sides.local_size) == (112, 48)
    each = [operations(one, 1000).update for one in (plain, two_stage)]
    assert [round(one / 1e9, 1) for one in each] == [106.3, 47.3]
    assert round(each[0] / each[1], 2) == 2.25


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"augment.global_size": 20},
            "augment.global_size must be a multiple of 8, twice model.patch_size, where "
            "augment.small_share halves it: 20; or set augment.small_share 0",
        ),
        ({"augment.local_size": 12}, "augment.local_size must be a multiple of 8"),
        ({"augment.small_share": 1.5}, "augment.small_share: input should be less than or equal"),
        ({"augment.small_share": -0.1}, "augment.small_share: input should be greater than"),
    ],
)
def test_halves_without_whole_patches_and_shares_that_are_none_are_refused(change, line):
    with pytest.raises(ConfigError) as caught:
        override(TrainConfig(), {"augment.small_share": 0.5, **change})
    assert str(caught.value).startswith(line)
    assert len(str(caught.value).splitlines()) == 1


def test_local_crops_that_are_not_cut_need_no_half():
    change = {"augment.local_size": 12, "augment.local_crops": 0, "augment.small_share": 0.5}
    config = override(TrainConfig(), change)
    assert augment_of_step(config, 0).global_size == 8
