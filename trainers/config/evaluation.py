"""Knobs of what is measured."""

from typing import Annotated, Literal

from pydantic import Field

from trainers.config.knob import DINO, OURS, Knobs, Steps, Switch, knob


class EvaluationConfig(Knobs):
    """What is measured of the teacher on held-out images, at step 0 and then at a cadence."""

    every: Steps = knob(
        300, "time between evaluations; the last step always", unit="steps or epochs", source=OURS
    )
    batch_size: int = knob(256, "images a forward pass", source=OURS, ge=1, le=10**6)
    tf32: Switch = knob(
        False,
        "whether products of float32 are rounded to 10 bits of mantissa while measuring, on GPUs",
        source="NVIDIA Ampere",
    )
    knn_neighbours: int = knob(20, "k of weighted k-NN", source=DINO, ge=1, le=10**6)
    knn_temperature: float = knob(0.07, "temperature of the k-NN votes", source=DINO, gt=0)
    probes: Switch = knob(
        True,
        "whether the linear and the position probe are trained, at step 0 and the last",
        source=DINO,
    )
    linear_blocks: int = knob(
        4,
        "last blocks whose [CLS] outputs the linear probe sees, at most",
        source=DINO,
        ge=1,
        le=1000,
    )
    linear_penalty: float = knob(
        1e-3, "L2 penalty of the linear probe", unit="nats", source=OURS, gt=0
    )
    position_images: int = knob(
        256, "images whose patches the position probe sees, at most", source=OURS, ge=4, le=10**6
    )
    globality_images: int = knob(
        4096,
        "held-out images on which globality is measured at step 0 and at the last, at most",
        source="docs/metrics.md",
        ge=1,
        le=10**9,
    )
    globality_probe_images: int = knob(
        64,
        "the first held-out images, on which attention of teacher and student is measured each "
        "time",
        source="docs/metrics.md",
        ge=1,
        le=10**9,
    )
    causal_images: int = knob(
        32,
        "images on which influence and gradient reach are measured, below 2 none",
        source="docs/metrics.md",
        ge=0,
        le=10**6,
    )
    map_images: int = knob(
        8,
        "the first held-out images, of which at most six evaluations keep maps of what [CLS] "
        "attends to; 0 keeps none",
        source=OURS,
        ge=0,
        le=64,
    )
    replacement: Literal["mean", "other", "moved"] = knob(
        "mean",
        "what stands in for a patch whose influence is measured: the mean patch at its place, that "
        "of another image, or (moved) the one half the grid away in the same image",
        source="Parodi et al. 2026",
    )
    patch_queries: int = knob(
        64,
        "patch queries that are measured on grids of more than 196 patches, spread over them",
        source="docs/metrics.md",
        ge=1,
        le=10**6,
    )
    attention_memory: float = knob(
        16.0, "attention weights held at once while measuring", unit="MiB", source=OURS, gt=0
    )
    globality_layers: tuple[Annotated[int, Field(ge=1)], ...] = knob(
        (1, 2),
        "primary layer set, blocks counted from 1; the final block is reported apart",
        source="docs/metrics.md",
        min_length=1,
    )
