"""Instruments held against the truth of scenes: what is counted, and a map that is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.scenes import KNOBS, PATCH, SIDE, difference, lifts, overlapped, tables
from trainers.config import override
from trainers.config.recipe import recipe
from trainers.data.scenes import scenes
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.state import TrainState


def test_touched_patches_are_those_with_a_pixel_of_the_square():
    squares = torch.from_numpy(scenes("far").squares[::16][:60])
    found = overlapped(squares)
    assert found.shape == (60, 3, 16)
    for scene in range(60):
        for number in range(3):
            row, column = squares[scene, number].tolist()
            pixels = torch.zeros(SIDE, SIDE, dtype=torch.bool)
            pixels[row : row + 12, column : column + 12] = True
            patches = pixels.unfold(0, PATCH, PATCH).unfold(1, PATCH, PATCH).flatten(2).any(2)
            assert found[scene, number].tolist() == patches.flatten().tolist()


def test_a_difference_has_the_interval_of_a_paired_t_test():
    far, near = [0.9, 1.1, 1.4, 1.0], [0.5, 0.9, 0.8, 0.9]
    found = difference("name", far, near)
    paired = np.array(far) - near
    half = stats.t.ppf(0.975, 3) * paired.std(ddof=1) / 2
    assert (found.low, found.high) == pytest.approx((paired.mean() - half, paired.mean() + half))
    assert (found.far, found.near) == pytest.approx((1.1, 0.775))
    assert found.sees == "cannot tell"
    assert difference("name", far, np.array(far) - [0.5, 0.6, 0.5, 0.6]).sees == "larger where far"
    assert difference("name", np.array(far) - [0.5, 0.6, 0.5, 0.6], far).sees == "smaller where far"


def test_the_published_tables_are_those_of_the_published_values():
    docs = Path(__file__).parents[2] / "docs"
    values = json.loads((docs / "instruments.json").read_text())
    assert {*values["far"]} == {*values["near"]} == {"1", "2", "3", "4"}
    assert tables(values) in (docs / "instruments.md").read_text()
    assert tables({"far": values["near"], "near": values["far"]}) != tables(values)


@pytest.mark.slow
@pytest.mark.parametrize("relation", ["far", "near"])
def test_even_attention_is_neither_on_what_is_needed_nor_beside_it(relation, tmp_path):
    """Of an untrained network whose [CLS] attends evenly by construction."""
    world = World(rank=0, size=1, device=torch.device("cpu"))
    knobs = KNOBS | {"data.source": f"scenes_{relation}", "model.cls_uniform": True}
    knobs |= {"loss.cls": 1, "loss.labels": 0}
    config = override(recipe("equalised_tiny"), knobs)
    checkpoint.save(
        TrainState.fresh(config, world), config, tmp_path / "attempts" / "0001", world
    )  # fmt: skip
    (tmp_path / "config.json").write_text(config.model_dump_json())
    found = lifts(tmp_path, relation)
    assert {kind for kind, _ in found} == {
        "attention, block 1", "attention, block 2", "attention, block 3",
        "rollout", "gradient reach", "influence",
    }  # fmt: skip
    for (kind, _), value in found.items():
        if kind.startswith("attention"):
            assert value == pytest.approx(1, abs=1e-5)
