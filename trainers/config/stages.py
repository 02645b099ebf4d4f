"""A run in two stages: small crops first, then full ones (Zhang et al. 2025, FastDINOv2)."""

from trainers.config.data import AugmentConfig
from trainers.config.train import TrainConfig


def small_steps(config: TrainConfig) -> int:
    """How many steps, from the first, have small crops; `config` has its length in steps."""
    return round(config.augment.small_share * config.steps)


def augment_of_step(config: TrainConfig, step: int) -> AugmentConfig:
    """What the update that leads from `step` to `step + 1` sees: crops of half the side, or full.

    `config` has its length in steps.
    """
    return halved(config.augment) if step < small_steps(config) else config.augment


def halved(augment: AugmentConfig) -> AugmentConfig:
    """`augment` with crops of half the side."""
    sizes = {name: getattr(augment, name) // 2 for name in ("global_size", "local_size")}
    return augment.model_copy(update=sizes)
