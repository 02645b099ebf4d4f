"""The 1,797 scanned digits that scikit-learn ships: 8×8 grey, ten labels."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def digits() -> tuple[np.ndarray, Tensor]:
    """Ink as grey levels, uint8 [1797, 8, 8], and labels int64 [1797], 0 to 9.

    The same as of `sklearn.datasets.load_digits`.
    """
    # Its file alone: the library takes a second to load, in each process that trains.
    if (library := find_spec("sklearn")) is None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    folder = Path(str(library.origin)).parent / "datasets" / "data"
    table = np.loadtxt(folder / "digits.csv.gz", delimiter=",")
    # Ink is counted in 17 levels, 0 to 16.
    levels = (table[:, :-1].reshape(-1, 8, 8) * 255 / 16).round().astype(np.uint8)
    return levels, torch.from_numpy(table[:, -1].astype(np.int64))
