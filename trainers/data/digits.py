"""The 1,797 scanned digits that scikit-learn ships: 8×8 grey, ten labels."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor


def digits() -> tuple[Tensor, Tensor]:
    """Pixels uint8 [1797, 3, 8, 8], grey in all channels, and labels int64 [1797]."""
    bunch = load_digits()
    # Ink is counted in 17 levels, 0 to 16.
    pixels = torch.from_numpy(bunch.images * 255 / 16).round().to(torch.uint8)
    return pixels[:, None].repeat(1, 3, 1, 1), torch.from_numpy(bunch.target).to(torch.int64)
