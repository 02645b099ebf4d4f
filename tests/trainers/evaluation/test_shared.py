"""An evaluation that workers share is that of one, and no worker waits long for another."""

import pytest
import torch

from tests.trainers.training.workers import (
    TIMEOUT_S,
    Job,
    metrics_of_each,
    run_group,
    seconds_of_an_evaluation,
)
from trainers.config import override
from trainers.evaluation.evaluate import evaluate
from trainers.metrics import PROBED
from trainers.system.world import GROUP_TIMEOUT, World
from trainers.training.state import TrainState

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
CHANGES = [
    {"evaluation.batch_size": 100, "evaluation.globality_images": 250, "model.registers": 1},
    # More workers than batches: one of them holds no images at all.
    {"evaluation.batch_size": 1000, "evaluation.causal_images": 5, "evaluation.probes": False},
    # The images that are shown lie in two batches.
    {"evaluation.batch_size": 5, "evaluation.globality_images": 12, "evaluation.probes": False},
    {"evaluation.batch_size": 90, "evaluation.replacement": "other", "compute.sharded": True},
]


@pytest.mark.slow
def test_workers_together_find_what_one_finds_alone(tiny, images, tmp_path):
    configs = [override(tiny, {"model.initial_deviation": 0.2, **change}) for change in CHANGES]
    together = run_group(3, *(Job(config, tmp_path) for config in configs), task=metrics_of_each)
    for config, found in zip(configs, together, strict=True):
        each, of_images, maps = zip(*found, strict=True)
        own: dict[str, torch.Tensor] = {}
        shown: dict[str, torch.Tensor] = {}
        state = TrainState.fresh(config, ALONE, 10)
        state.step = config.steps
        alone = evaluate(state, images, config, by_image=own, maps=shown)
        assert each == each[:1] * 3
        for kept in of_images:
            assert kept.keys() == own.keys()
            for name, values in kept.items():
                if "linear_probe" not in name:
                    assert values == pytest.approx(own[name].numpy(), rel=1e-3, abs=1e-5), name
        for kept in maps:
            assert kept.keys() == shown.keys()
            for name, values in kept.items():
                # Influence is measured in batches of other sizes.
                near = 1e-3 if name == "influence" else 0
                assert values == pytest.approx(shown[name].numpy(), rel=near, abs=0), name
        assert each[0].keys() == alone.keys()
        for name, value in each[0].items():
            if name.startswith(("knn/", "gap/")):
                assert value == alone[name], name
            elif name in PROBED and name.startswith("linear_probe/"):
                # One image at most, on which the classifier cannot decide.
                assert value == pytest.approx(alone[name], abs=1.5 / len(images.test)), name
            else:
                assert value == pytest.approx(alone[name], rel=1e-4, abs=1e-6), name


@pytest.mark.slow
def test_an_evaluation_may_take_longer_than_the_timeout_of_the_group(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv(GROUP_TIMEOUT, str(TIMEOUT_S))
    config = override(tiny, {"evaluation.batch_size": 64, "evaluation.globality_probe_images": 1})
    (took,) = run_group(2, Job(config, tmp_path), task=seconds_of_an_evaluation)
    assert took > 3 * TIMEOUT_S
