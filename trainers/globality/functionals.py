"""Functionals of attention maps: how far, how evenly and on what a query attends (METRICS A.9).

A map is a probability vector over patches, row by row on a grid of gh × gw. Every functional is
relative to the uniform map on the same patches, so it compares across queries and grids: uniform
is 1, a single patch is 0 (or 1/N). Pure, float32, batched over leading axes.

Shapes: ... any leading axes, Q queries, T = P + N tokens (P first ones: [CLS] and registers),
N = gh · gw patches.
"""

import math

import torch
from torch import Tensor

Grid = tuple[int, int]

LEAST_MASS = 1e-6
"""Below this share of attention on patches there is no map to speak of: the value is NaN."""


def conditional(
    attention_QT: Tensor, excluded: Tensor | None, first: int = 1
) -> tuple[Tensor, Tensor]:
    """Maps [..., Q, N] of attention [..., Q, T] given that it falls on patches, and that mass.

    The patches come after the `first` P tokens.
    `excluded`, int64 [Q], is the patch of each patch query: attention to oneself does not count.
    [CLS] queries exclude none. The mass [..., Q] is that on the counted patches; where it is below
    LEAST_MASS the map is NaN.
    """
    maps = attention_QT[..., first:]
    if excluded is not None:
        maps = maps.scatter(-1, excluded[:, None].expand(*maps.shape[:-1], 1), 0.0)
    mass = maps.sum(-1)
    known = torch.where(mass < LEAST_MASS, torch.nan, mass)
    return maps / known[..., None], mass


def _positions(grid: Grid, like: Tensor) -> Tensor:
    """Row and column of each patch, centred on the grid, [N, 2]."""
    rows = torch.arange(grid[0], device=like.device, dtype=like.dtype) - (grid[0] - 1) / 2
    columns = torch.arange(grid[1], device=like.device, dtype=like.dtype) - (grid[1] - 1) / 2
    return torch.cartesian_prod(rows, columns)


def gyration(maps_QN: Tensor, grid: Grid, excluded: Tensor | None) -> Tensor:
    """M1, gyration ratio [..., Q]: root mean square spread about the centroid, over uniform's.

    ``sqrt(Σ p |x - μ|² / V)``, V the same for the uniform map on the counted patches. 0 for a
    single patch, 1 for uniform; NaN where the uniform map has no spread.
    """
    x = _positions(grid, maps_QN)
    squared = (x**2).sum(-1)
    spread = maps_QN @ squared - ((maps_QN @ x) ** 2).sum(-1)
    patches = len(x)
    uniform = (grid[0] ** 2 - 1) / 12 + (grid[1] ** 2 - 1) / 12
    if excluded is None:
        baseline = torch.full_like(spread, uniform)
    else:
        others = patches - 1
        own = squared[excluded]
        baseline = (patches * uniform - own * patches / max(others, 1)) / max(others, 1)
        baseline = baseline.expand_as(spread)
    baseline = torch.where(baseline > 1e-6, baseline, torch.nan)
    return (spread.clamp(min=0) / baseline).sqrt()


def entropy(maps_QN: Tensor, excluded: Tensor | None) -> Tensor:
    """M2, normalised entropy [..., Q]: ``-Σ p ln p / ln(number of counted patches)``, in [0, 1]."""
    counted = maps_QN.shape[-1] - (excluded is not None)
    total = torch.special.entr(maps_QN).sum(-1)
    return total / math.log(counted) if counted > 1 else torch.full_like(total, torch.nan)


def coverage(maps_QN: Tensor, shares: tuple[float, ...], excluded: Tensor | None) -> list[Tensor]:
    """M3, for each share p the interpolated number of largest weights that hold mass p.

    Over p times the number of counted patches: each [..., Q], in [1/N, 1], 1 for uniform.
    ``K = k - 1 + (p - S_{k-1}) / p_(k)`` with the first k of the sorted weights reaching p.
    """
    counted = maps_QN.shape[-1] - (excluded is not None)
    ordered = maps_QN.sort(-1, descending=True).values
    reached = ordered.cumsum(-1)
    found = []
    for share in shares:
        # Of the sum as rounded: it may be just below 1, and no weight of 0 may count.
        goal = share * reached[..., -1:]
        first = (reached < goal).sum(-1, keepdim=True)
        beyond = (reached.gather(-1, first) - goal) / ordered.gather(-1, first)
        number = (first + 1 - beyond)[..., 0]
        found.append(number / (share * counted))
    return found


def beyond_uniform(mass: Tensor, tokens: int, counted: int = 1) -> Tensor:
    """M6, mass on `counted` of T tokens against uniform attention: ``(m - c/T) / (1 - c/T)``.

    0 for uniform, 1 for all of it, least ``-c/(T - c)``.
    """
    return (mass - counted / tokens) / (1 - counted / tokens)
