"""How much of its place in the image a single patch token still tells: ridge regression."""

import torch
from torch import Tensor

from trainers.grid import Grid
from trainers.model.positions import patch_coordinates

DESCRIPTIONS = {
    "position_probe/r2": "share of the variance of row and column that a linear map of one patch "
    "token explains, on held-out images; 1 all, 0 or less nothing",
}

PENALTY = 1e-3
"""Ridge penalty, as a share of the mean variance of a feature."""


def position_r2(tokens: Tensor, grid: Grid) -> dict[str, float]:
    """`position_probe/r2` of patch tokens [n, N, D] of n >= 2 images.

    A linear map from one token to its coordinates (down, right) is fitted on the first half of the
    images and judged on the others, so no image is on both sides: ``1 - Σ error² / Σ coordinate²``
    over both coordinates. Turning the feature space, or scaling all of it, changes nothing.
    Nothing is returned for a grid of one patch, which has no places to tell apart. Computed in
    float64. Raises ValueError for fewer than two images.
    """
    if len(tokens) < 2:
        raise ValueError(f"a position probe needs two images or more, got {len(tokens)}")
    if grid == (1, 1):
        return {}
    places_N2 = patch_coordinates(grid, tokens.device).double()
    half = len(tokens) // 2
    known, asked = tokens[:half].double(), tokens[half:].double()
    mean = known.mean((0, 1))
    known, asked = known - mean, asked - mean
    features = known.flatten(0, 1)
    # Coordinates have mean 0 over the patches of an image: there is no offset to fit.
    square_DD = features.T @ features / len(features)
    cross_D2 = known.mean(0).T @ places_N2 / len(places_N2)
    ridge = PENALTY * square_DD.diagonal().mean()
    # A constant feature space has no variance at all; any map of it tells nothing.
    ridge = ridge.clamp(min=torch.finfo(torch.float64).tiny)
    map_D2 = torch.linalg.solve(
        square_DD + ridge * torch.eye(len(square_DD), device=tokens.device).double(), cross_D2
    )
    error = (asked @ map_D2 - places_N2).square().sum()
    return {"position_probe/r2": 1 - float(error / (len(asked) * places_N2.square().sum()))}
