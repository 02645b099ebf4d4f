"""Which images a step sees: a pure function of (seed, step), whatever the number of workers."""

import functools

import torch
from torch import Tensor

from trainers.randomness.streams import Stream


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, size: int) -> Tensor:
    return Stream(seed, "sample order").permutation(epoch, size, torch.device("cpu"))


def batch(seed: int, step: int, batch_size: int, size: int) -> tuple[Tensor, Tensor]:
    """Places in [0, size) and epochs of the images of a step, two int64 [batch_size].

    Steps read on through one epoch's keyed order after the other; nothing is dropped.
    """
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // size
    places = torch.empty_like(positions)
    for epoch in epochs.unique().tolist():
        inside = epochs == epoch
        places[inside] = _order(seed, epoch, size)[positions[inside] % size]
    return places, epochs
