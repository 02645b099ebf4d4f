"""How much memory a run takes at the least, from its knobs alone."""

import itertools
from typing import Protocol

from trainers.config.compute import ComputeConfig
from trainers.config.data import AugmentConfig
from trainers.config.evaluation import EvaluationConfig
from trainers.config.model import HeadConfig, ModelConfig


class Shapes(Protocol):
    """What memory depends on; a TrainConfig has it."""

    @property
    def model(self) -> ModelConfig: ...

    @property
    def head(self) -> HeadConfig: ...

    @property
    def augment(self) -> AugmentConfig: ...

    @property
    def compute(self) -> ComputeConfig: ...

    @property
    def batch_size(self) -> int: ...


MOST_GIB = 4096
"""More than one machine holds."""

MOST_PATCHES = 2**16
"""Of one crop."""


def patches(config: Shapes, side: int) -> int:
    """Patches of a crop of `side` pixels."""
    return (side // config.model.patch_size) ** 2


def least_gib(config: Shapes, images: int = 1) -> float:
    """GiB that a worker needs at the least whose steps have `images` images in a part.

    Weights, gradients and both moments of the student and weights of the teacher, and what the
    student's blocks keep of these images for the backward pass. A sharded run may need less.
    """
    model, head = config.model, config.head
    blocks = model.depth * (4 + 2 * model.mlp_ratio) * model.width**2
    features = [model.width, *[head.hidden] * (head.layers - 1), head.bottleneck, head.prototypes]
    layers = sum(wide * other for wide, other in itertools.pairwise(features))
    crops = (
        (config.augment.global_crops, config.augment.global_size),
        (config.augment.local_crops, config.augment.local_size),
    )
    tokens = sum(number * patches(config, side) for number, side in crops)
    # Of a block: its input; unless it is computed again, queries, keys, values, two normalised
    # inputs, the result of attention and both sides of the MLP's activation.
    kept = 1 if config.compute.activation_checkpointing else 7 + 2 * model.mlp_ratio
    number = 2 if config.compute.precision == "bf16" else 4
    activations = images * tokens * model.depth * model.width * kept * number
    return (5 * 4 * (blocks + layers) + activations) / 2**30


def remedy_of_step(config: Shapes) -> str:
    """What to change where a training step needs more memory than there is."""
    compute = config.compute
    again = "" if compute.activation_checkpointing else "set compute.activation_checkpointing, "
    return (
        f"raise compute.accumulate ({compute.accumulate} now), {again}lower batch_size "
        f"({config.batch_size} now), augment.local_crops or augment.global_size, or give more "
        "workers"
    )


def remedy_of_evaluation(config: EvaluationConfig) -> str:
    """What to change where an evaluation needs more memory than there is."""
    return (
        f"lower evaluation.batch_size ({config.batch_size} now) or evaluation.attention_memory "
        f"({config.attention_memory:g} MiB now)"
    )


def share_problem(config: Shapes, workers: int) -> str:
    """Why the images of a step do not divide among workers and parts; empty if they do."""
    images, left = divmod(config.batch_size, workers)
    if left or not images:
        return (
            f"batch_size {config.batch_size} does not divide by {workers} workers; choose a number "
            "that divides it"
        )
    if config.compute.accumulate > images:
        return (
            f"compute.accumulate {config.compute.accumulate} is more than the {images} images of "
            f"each of {workers} workers (batch_size {config.batch_size}); choose {images} or less"
        )
    return ""
