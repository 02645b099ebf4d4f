"""The 1,797 scanned digits that scikit-learn ships: 8×8 grey, ten labels."""

import numpy as np
import torch
from torch import Tensor


def digits() -> tuple[np.ndarray, Tensor]:
    """Ink as grey levels, uint8 [1797, 8, 8], and labels int64 [1797], 0 to 9."""
    # Here, since whoever trains on other images has no use for it.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Ink is counted in 17 levels, 0 to 16.
    levels = (bunch.images * 255 / 16).round().astype(np.uint8)
    return levels, torch.from_numpy(bunch.target).to(torch.int64)
