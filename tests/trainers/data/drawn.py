"""Draws of crops, as tests ask for them."""

import torch

from trainers.data.augment import draw
from trainers.data.cut import Draws
from trainers.randomness.streams import Stream


def draws_of(count: int, view: int = 0) -> Draws:
    """Those of one view of `count` images."""
    identifiers = torch.arange(count)
    epochs = torch.zeros_like(identifiers)
    return draw(Stream(0, "augmentation"), epochs, identifiers, range(view, view + 1))
