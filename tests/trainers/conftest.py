"""A run small enough to be made many times in a test."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from trainers.config import TrainConfig, override
from trainers.data.image_set import ImageSet, open_images


class Recorder:
    """A reporter that keeps everything in memory."""

    def __init__(self) -> None:
        self.records: list[tuple[int, dict[str, float]]] = []
        self.checkpoints: list[Path] = []

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        if metrics:
            self.records.append((step, dict(metrics)))
        if checkpoint:
            self.checkpoints.append(checkpoint)


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture(scope="session")
def tiny() -> TrainConfig:
    return override(
        TrainConfig(),
        {
            "steps": 6,
            "batch_size": 8,
            "log_every": 1,
            "checkpoint_every": 2,
            "model.width": 24,
            "model.heads": 2,
            "model.depth": 2,
            "head.hidden": 16,
            "head.bottleneck": 8,
            "head.prototypes": 16,
            "optimizer.warmup_steps": 2,
            "optimizer.freeze_last_layer_steps": 1,
            "evaluation.every": 6,
            "evaluation.globality_images": 16,
            "evaluation.globality_probe_images": 8,
            "evaluation.causal_images": 2,
            "evaluation.globality_layers": [1],
        },
    )


@pytest.fixture(scope="session")
def images(tiny: TrainConfig) -> ImageSet:
    return open_images(tiny.data, Path("unused"))
