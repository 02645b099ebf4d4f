"""Chance in a forward pass: keyed by image, epoch and view, and distributed as stated."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from trainers.config import LossConfig, ModelConfig
from trainers.randomness.forward_draws import (
    TRIES,
    ForwardDraws,
    drop_path,
    evaluation_draws,
    keyed,
    masks,
    wandering_cls,
)

MANY = torch.arange(4000)
FIRST = torch.zeros_like(MANY)


def source(purpose="test", identifiers=MANY, epochs=FIRST, views=range(1), seed=0):
    return keyed(seed, purpose, identifiers, epochs, views)


def test_draws_belong_to_an_image_an_epoch_a_view_a_purpose_and_a_seed():
    images = torch.tensor([5, 9])
    both = source(identifiers=images, epochs=torch.tensor([0, 1]), views=range(2)).uniform(3)
    alone = source(identifiers=images[1:], epochs=torch.tensor([1]), views=range(2)).uniform(3)
    assert torch.equal(both.unflatten(0, (2, 2))[:, 1], alone)
    later = source(identifiers=images[1:], epochs=torch.tensor([1]), views=range(1, 2)).uniform(3)
    assert torch.equal(alone[1:], later)
    changed = [
        source("other", images[:1]).uniform(3),
        source("test", images[:1], seed=1).uniform(3),
        source("test", images[:1], torch.tensor([1])).uniform(3),
        source("test", images[:1]).uniform(3),
        source("test", images[1:]).uniform(3),
    ]
    assert len({tuple(one.flatten().tolist()) for one in changed}) == len(changed)


def test_drop_path_rises_linearly_with_depth_and_keeps_the_mean():
    model = ModelConfig(depth=5, drop_path=0.4)
    keep = drop_path(source(), model)
    assert keep.shape == (4000, 5, 2)
    for block in range(5):
        chance = 0.4 * block / 4
        values = keep[:, block].flatten()
        kept = values[values != 0]
        torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - chance)))
        dropped = int((values == 0).sum())
        if chance:
            assert scipy.stats.binomtest(dropped, 8000, chance).pvalue > 1e-3
        else:
            assert dropped == 0
    assert drop_path(source(), ModelConfig()) is None


def test_masks_hide_a_uniform_share_of_uniform_patches_in_some_rows():
    loss = LossConfig(mask_share=(0.2, 0.6), mask_probability=0.5)
    hidden = masks(source(), loss, (5, 8))
    counts = hidden.sum(1)
    some = counts > 0
    assert scipy.stats.binomtest(int(some.sum()), 4000, 0.5).pvalue > 1e-3
    assert counts[some].min() >= 8
    assert counts[some].max() < 24
    # Shares are rounded down to patches.
    found = counts[some].sub(8).bincount(minlength=16)
    assert scipy.stats.chisquare(found).pvalue > 1e-3
    places = hidden.sum(0)
    assert scipy.stats.chisquare(places).pvalue > 1e-3


def ibots_blocks(uniform, high, height, width):
    """The generator of bytedance/ibot, loader.py, from given uniform numbers."""
    mask = np.zeros((height, width), dtype=bool)
    tries = iter(uniform)
    low = (min(height, width) // 3) ** 2
    count, going = 0, True
    while going and count < high:
        going = False
        for _ in range(10):
            area, ratio, top, left = next(tries)
            area = low + area * (high - count - low)
            ratio = math.exp(math.log(0.3) + (1 - ratio) * (math.log(1 / 0.3) - math.log(0.3)))
            h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if w < width and h < height:
                top, left = int(top * (height - h + 1)), int(left * (width - w + 1))
                part = mask[top : top + h, left : left + w]
                new = int((~part).sum())
                if 0 < new <= high - count:
                    part[:] = True
                    count += new
                    going = True
                    break
    return mask


@pytest.mark.parametrize("grid", [(4, 4), (14, 14), (9, 16), (2, 2)])
def test_blocks_are_those_of_ibot(grid):
    loss = LossConfig(mask_share=(0.1, 0.6), mask_probability=0.7, mask_kind="block")
    some = source(identifiers=MANY[:300], epochs=FIRST[:300])
    found = masks(some, loss, grid)
    drawn = some.uniform(2 + 4 * TRIES).double().numpy()
    for row, mask in zip(drawn, found, strict=True):
        share = np.float32(0.1) + np.float32(row[1]) * np.float32(0.5)
        high = float(share * np.float32(grid[0] * grid[1])) * (row[0] < 0.7)
        expected = ibots_blocks(row[2:].reshape(TRIES, 4), high, *grid)
        assert np.array_equal(mask.view(grid), expected)
        assert mask.sum() <= high


def test_blocks_hide_nearly_the_share_and_neighbours_together():
    loss = LossConfig(mask_probability=1.0)
    nearby = {}
    for kind in ("random", "block"):
        hidden = masks(source(), loss.model_copy(update={"mask_kind": kind}), (14, 14))
        share = hidden.double().mean().item()
        assert 0.285 < share <= 0.3, (kind, share)
        square = hidden.view(-1, 14, 14)
        both = square[:, 1:] & square[:, :-1]
        nearby[kind] = (both.sum() / square[:, 1:].sum()).item()
    # A random neighbour is hidden as often as any patch of a masked crop.
    assert nearby["random"] == pytest.approx(0.34, abs=0.02)
    assert nearby["block"] > 0.7


def test_blocks_of_an_image_do_not_depend_on_its_neighbours():
    loss = LossConfig(mask_kind="block")
    every = masks(source(), loss, (6, 6))
    some = masks(source(identifiers=MANY[40:50], epochs=FIRST[:10]), loss, (6, 6))
    assert torch.equal(every[40:50], some)


def test_a_wandering_cls_visits_every_patch_alike():
    visited = wandering_cls(source(), ModelConfig(cls_position="random"), (4, 4))
    assert scipy.stats.chisquare(visited.bincount(minlength=16)).pvalue > 1e-3
    assert wandering_cls(source(), ModelConfig(), (4, 4)) is None
    assert wandering_cls(source(), ModelConfig(cls=False, cls_position="random"), (4, 4)) is None


def test_some_rows_of_draws_are_those_rows():
    draws = ForwardDraws(keep=torch.rand(4, 2, 2), cls_patch=torch.arange(4))
    some = draws.rows(torch.tensor([2, 0]))
    assert torch.equal(some.keep, draws.keep[[2, 0]])
    assert some.cls_patch.tolist() == [2, 0]
    assert some.mask is None


def test_where_images_are_measured_cls_wanders_by_image_and_seed_alone():
    model = ModelConfig(cls_position="random")
    drawn = evaluation_draws(0, MANY, model, (4, 4))
    assert (drawn.keep, drawn.mask) == (None, None)
    assert drawn.cls_patch.unique().tolist() == list(range(16))
    assert torch.equal(
        evaluation_draws(0, MANY[7:9], model, (4, 4)).cls_patch, drawn.cls_patch[7:9]
    )
    assert not torch.equal(evaluation_draws(1, MANY, model, (4, 4)).cls_patch, drawn.cls_patch)
    assert evaluation_draws(0, MANY, ModelConfig(), (4, 4)).cls_patch is None
