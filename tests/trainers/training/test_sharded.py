"""Workers that share parameters in bfloat16 learn what one alone learns in bfloat16."""

import pytest
import torch

from tests.trainers.conftest import Recorder
from tests.trainers.training.test_saving import same, tensors_of, without_times
from tests.trainers.training.workers import Job, records_and_types, run_group
from trainers.config import override
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.loop import train

pytestmark = pytest.mark.slow

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
ROUNDING = 2.0**-8
"""Of one number in bfloat16, relative, at most."""


@pytest.fixture(scope="module")
def config(tiny):
    return override(
        tiny,
        {
            "compute.precision": "bf16", "compute.sharded": True, "compute.accumulate": 2,
            "model.layer_scale": 0.1, "model.registers": 1, "loss.masked": 0.5,
            # Low temperatures make more of every rounding.
            "targets.temperature": 0.1, "targets.temperature_start": 0.1,
            "checkpoints.keep_steps": [4], "evaluation.causal_images": 0,
            "evaluation.globality_images": 8, "evaluation.probes": False,
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def together(config, folder):
    """Of two workers: records of a whole run, and of its rest from step 4 on; types, used and
    kept."""
    saved = checkpoint.folder_of(folder / "whole", 4)
    jobs = Job(config, folder / "whole"), Job(config, folder / "rest", saved)
    (whole, *types), (rest, *_) = run_group(2, *jobs, task=records_and_types)
    return whole, rest, *types


def of_steps(records):
    return {step: metrics for step, metrics in records if "loss/total" in metrics}


def test_each_step_loses_what_it_loses_alone_to_rounding(config, together, images, tmp_path):
    alone = Recorder()
    train(
        config,
        images=images,
        world=ALONE,
        reporter=alone,
        checkpoints=tmp_path,
        resume_from=None,
    )
    expected, found = of_steps(alone.records), of_steps(together[0])
    assert expected.keys() == found.keys()
    for step, metrics in expected.items():
        assert found[step]["data/chain"] == metrics["data/chain"]
        for name in ("loss/total", "loss/cls", "loss/masked"):
            assert found[step][name] == pytest.approx(metrics[name], rel=ROUNDING), (step, name)
        norm = "optimizer/gradient_norm"
        assert found[step][norm] == pytest.approx(metrics[norm], rel=4 * ROUNDING), step


def test_a_resumed_run_has_the_same_bits(config, together, folder):
    whole, rest, *_ = together
    later = [one for one in without_times(whole) if one[0] > 4]
    assert len(of_steps(later)) == config.steps - 4
    assert without_times(rest) == later
    last = (checkpoint.folder_of(folder / name, config.steps) for name in ("whole", "rest"))
    same(*(tensors_of(path, config) for path in last))


def test_matrices_of_blocks_alone_are_used_in_bfloat16_and_nothing_is_kept_so(together):
    _, _, used, kept = together
    rough = {name for name, kind in used.items() if kind == torch.bfloat16}
    of_blocks = {name for name in used if name.startswith("backbone.blocks.")}
    assert rough == {one for one in of_blocks if "norm" not in one and one.endswith("weight")}
    assert {used[name] for name in used.keys() - rough} == kept == {torch.float32}
    assert {"head.prototypes", "backbone.cls", "backbone.blocks.1.norm2.weight"} <= used.keys()
