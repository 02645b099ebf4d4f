"""Epochs and rates per 256 images, as people think of them, become steps and rates."""

from collections.abc import Iterator

from pydantic import BaseModel

from trainers.config.change import override
from trainers.config.knob import Epochs, Per256
from trainers.config.train import TrainConfig


def in_steps(config: TrainConfig, images: int) -> TrainConfig:
    """`config` with every length in steps and every rate that of its batch.

    `images` are those that are trained on. An epoch reads each of them once, so n epochs are
    ``n · images / batch_size`` steps, rounded; one at the least, unless it was 0 epochs. A rate per
    256 grows linearly with the batch (Goyal et al. 2017). What is in steps already stays.

    A run of a whole number of times `evaluation.every`, both in epochs, is the nearest whole number
    of times that in steps, too: rounded each by itself, its last two evaluations could be a few
    steps apart.
    """
    change: dict[str, float] = {}
    for name, value in _relative(config):
        if isinstance(value, Epochs):
            change[name] = max(1, round(value.number * images / config.batch_size))
        else:
            change[name] = value.number * config.batch_size / 256
    length, every = config.steps, config.evaluation.every
    if isinstance(length, Epochs) and isinstance(every, Epochs):
        cadence = change["evaluation.every"]
        if (length.number / every.number).is_integer():
            change["steps"] = cadence * max(1, round(change["steps"] / cadence))
    return override(config, change) if change else config


def _relative(group: BaseModel, prefix: str = "") -> Iterator[tuple[str, Epochs | Per256]]:
    for name in type(group).model_fields:
        value = getattr(group, name)
        if isinstance(value, BaseModel):
            yield from _relative(value, f"{prefix}{name}.")
        elif isinstance(value, Epochs | Per256):
            yield prefix + name, value
