"""Where tokens are: learned tables between grids, fixed sine-cosine codes, rotary angles.

Coordinates (down, right) span an image from -1 to 1; the centre of patch i of g lies at
``(2 i + 1) / g - 1``, so one coordinate means the same place whatever the crop's resolution.

Shapes: N = gh · gw patches row by row, D features, K features of a head.
"""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from trainers.grid import Grid


@functools.cache
def point(place: tuple[float, float], device: torch.device) -> Tensor:
    """A place as coordinates, float32 [2], sent to the device once."""
    return torch.tensor(place, device=device)


@functools.cache
def patch_coordinates(grid: Grid, device: torch.device) -> Tensor:
    """Coordinates of the centres of all patches, float32 [N, 2] in (-1, 1)."""
    down, right = (
        (2 * torch.arange(side, device=device, dtype=torch.float32) + 1) / side - 1 for side in grid
    )
    return torch.cartesian_prod(down, right).view(-1, 2)


@functools.cache
def interpolation(full: Grid, part: Grid, offset: float, device: torch.device) -> Tensor:
    """Bicubic interpolation from one grid to another as a matrix [N of part, N of full].

    With an `offset` the places are those of a part that many patches longer; DINO's code has 0.1.
    A product with the matrix has a gradient that is the same bits each time.
    """
    each_1Nhw = torch.eye(full[0] * full[1], device=device).unflatten(1, full)[None]
    factors = tuple((here + offset) / there for here, there in zip(part, full, strict=True))
    if offset:
        table = functional.interpolate(each_1Nhw, scale_factor=factors, mode="bicubic")
    else:
        table = functional.interpolate(each_1Nhw, part, mode="bicubic")
    return table.flatten(2)[0].T.contiguous()


def patch_at(place: tuple[float, float], grid: Grid) -> int:
    """Number of the patch that holds the point at `place`, each coordinate in [-1, 1]."""
    row, column = (
        min(int((coordinate + 1) / 2 * side), side - 1)
        for coordinate, side in zip(place, grid, strict=True)
    )
    return row * grid[1] + column


def sine_cosine(coordinates: Tensor, grid: Grid, width: int) -> Tensor:
    """Fixed two-dimensional codes [..., D] at `coordinates` [..., 2] (Chen et al. 2021, MoCo v3).

    With x and y the place in patches of `grid`, 0 at the centre of the first patch: sine and cosine
    of x · ω, then of y · ω, at D/4 frequencies ``ω = 10000^(-4 k / D)``.
    """
    y, x = (
        (along + 1) * side / 2 - 0.5
        for along, side in zip(coordinates.unbind(-1), grid, strict=True)
    )
    quarter = width // 4
    steps = torch.arange(quarter, device=coordinates.device, dtype=coordinates.dtype) / quarter
    frequencies = 10000.0**-steps
    along_x, along_y = x[..., None] * frequencies, y[..., None] * frequencies
    return torch.cat([along_x.sin(), along_x.cos(), along_y.sin(), along_y.cos()], dim=-1)


def rotary_angles(coordinates: Tensor, features: int, base: float) -> Tensor:
    """Angles [..., K] of a rotation by `coordinates` [..., 2] (Siméoni et al. 2025, DINOv3).

    ``2π · coordinate / base^(4 k / K)`` for k < K/4: those of the first coordinate, those of the
    second, and both again for the other half of the features.
    """
    quarter = features // 4
    steps = torch.arange(quarter, device=coordinates.device, dtype=coordinates.dtype) / quarter
    turns = coordinates[..., None] / base**steps
    return (2 * math.pi * turns.flatten(-2)).repeat(*(1 for _ in coordinates.shape[:-1]), 2)


@functools.cache
def rotary_table(
    grid: Grid,
    first: int,
    cls_place: tuple[float, float] | None,
    origin: float,
    features: int,
    base: float,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Cosine and sine [T, K] of the angles of `first` tokens, then of the patches of a grid.

    Of the first ones, [CLS] is turned where it has a place; the others are not. Coordinates are
    counted from `origin`.
    """
    here = torch.zeros(first, 2, device=device)
    if cls_place is not None:
        here[0] = point(cls_place, device) - origin
    coordinates = torch.cat([here, patch_coordinates(grid, device) - origin])
    angles = rotary_angles(coordinates, features, base)
    return angles.cos(), angles.sin()


def rotate(heads_BHTK: Tensor, cosine_TK: Tensor, sine_TK: Tensor) -> Tensor:
    """Queries or keys with feature k turned against feature k + K/2 by the angle of its token."""
    first, second = heads_BHTK.chunk(2, dim=-1)
    return heads_BHTK * cosine_TK + torch.cat([-second, first], dim=-1) * sine_TK
