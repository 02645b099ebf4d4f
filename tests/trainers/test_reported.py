"""Which metrics a run reports, by its configuration."""

import pytest
import torch

from trainers.config import TrainConfig, override
from trainers.data.image_set import open_images
from trainers.metrics import LABELLED, METRICS
from trainers.reported import why_missing
from trainers.system.world import World
from trainers.training.loop import train

SMALL = override(
    TrainConfig(),
    {
        "steps": 1, "batch_size": 4, "augment.local_crops": 1, "data.test_share": 0.01,
        "model.width": 16, "model.heads": 2, "model.depth": 2, "model.initial_deviation": 0.1,
        "head.hidden": 8, "head.bottleneck": 8, "head.prototypes": 8,
        "optimizer.warmup_steps": 0, "evaluation.globality_images": 4,
        "evaluation.globality_probe_images": 4, "evaluation.causal_images": 2,
    },
)  # fmt: skip

WITHOUT_CLS = {"model.cls": False, "loss.cls": 0.0, "loss.patches": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"model.registers": 2, "loss.masked": 0.5, "loss.koleo": 0.1, "loss.labels": 0.5},
        WITHOUT_CLS,
        WITHOUT_CLS | {"model.registers": 1, "loss.register_token": 0.5},
        {"loss.cls": 0.0, "loss.labels": 1.0},
        {"loss.cls": 0.0, "evaluation.probes": False, "evaluation.causal_images": 1},
        {"model.heads": 1},
        {"data.source": "photographs"},
    ],
    ids=str,
)
def test_what_a_run_cannot_report_is_known_beforehand(change, tmp_path):
    config = override(SMALL, change)
    reported = set()

    class Names:
        def report(self, step, metrics, *, checkpoint=None):
            reported.update(metrics)

    images = open_images(config.data, None)
    train(
        config,
        images=images,
        world=World(rank=0, size=1, device=torch.device("cpu")),
        reporter=Names(),
        checkpoints=tmp_path,
        resume_from=None,
    )
    expected = {name for name in METRICS if not why_missing(name, config)}
    if images.labels is None:
        expected -= LABELLED
    assert expected == reported & set(METRICS)
