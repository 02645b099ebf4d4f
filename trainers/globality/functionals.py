"""Functionals of attention maps: how far, how evenly and on what a query attends.

A map is a probability vector over patches, row by row on a grid of gh × gw. Every functional is
relative to the uniform map on the same patches, so it compares across queries and grids: uniform
is 1, a single patch is 0 (or 1/N). Pure, float32, batched over leading axes.

Shapes: ... any leading axes, Q queries, T = P + N tokens (P first ones: [CLS] and registers),
from trainers.grid import Grid


N = gh · gw patches.
"""

import math

import numpy as np
import torch
from torch import Tensor

from trainers.grid import Grid

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
    maps = attention_QT[..., first:].clone(memory_format=torch.contiguous_format)
    if excluded is not None:
        maps.scatter_(-1, excluded[:, None].expand(*maps.shape[:-1], 1), 0.0)
    mass = maps.sum(-1)
    known = torch.where(mass < LEAST_MASS, torch.nan, mass)
    return maps.div_(known[..., None]), mass


def _positions(grid: Grid, like: Tensor) -> Tensor:
    """Row and column of each patch, centred on the grid, [N, 2]."""
    rows = torch.arange(grid[0], device=like.device, dtype=like.dtype) - (grid[0] - 1) / 2
    columns = torch.arange(grid[1], device=like.device, dtype=like.dtype) - (grid[1] - 1) / 2
    return torch.cartesian_prod(rows, columns)


def gyration(maps_QN: Tensor, grid: Grid, excluded: Tensor | None) -> Tensor:
    """Gyration ratio [..., Q]: root mean square spread about the centroid, over uniform's.

    ``sqrt(Σ p |x - μ|² / V)``, V the same for the uniform map on the counted patches. 0 for a
    single patch, 1 for uniform; NaN where the uniform map has no spread.
    """
    x = _positions(grid, maps_QN)
    squared = (x**2).sum(-1)
    # Column by column: products with two or three columns take several times as long on CPUs.
    rows, columns = (maps_QN @ line for line in x.T.contiguous())
    spread = maps_QN @ squared - rows**2 - columns**2
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
    """Normalised entropy [..., Q]: ``-Σ p ln p / ln(number of counted patches)``, in [0, 1]."""
    counted = maps_QN.shape[-1] - (excluded is not None)
    # Half the time of torch.special.entr on CPUs.
    total = -maps_QN.clamp(min=torch.finfo(maps_QN.dtype).tiny).log_().mul_(maps_QN).sum(-1)
    return total / math.log(counted) if counted > 1 else torch.full_like(total, torch.nan)


def coverage(maps_QN: Tensor, shares: tuple[float, ...], excluded: Tensor | None) -> list[Tensor]:
    """For each share p the interpolated number of largest weights that hold mass p.

    Over p times the number of counted patches: each [..., Q], in [1/N, 1], 1 for uniform.
    ``K = k - 1 + (p - S_{k-1}) / p_(k)`` with the first k of the sorted weights reaching p.
    """
    patches = maps_QN.shape[-1]
    counted = patches - (excluded is not None)
    rising = ascending(maps_QN)
    below = rising.cumsum(-1)
    # Of the sum as rounded: it may be just below 1, and no weight of 0 may count.
    goals = below[..., -1:] * torch.tensor(shares, device=below.device)
    rest = below[..., -1:] - goals
    # So many of the smallest weights are not needed; the next one is the last that is.
    spared = torch.searchsorted(below, rest, right=True).clamp_(max=patches - 1)
    last = rising.gather(-1, spared)
    over = below.gather(-1, spared) - rest
    numbers = (patches - 1 - spared + over / last).unbind(-1)
    return [number / (share * counted) for number, share in zip(numbers, shares, strict=True)]


def ascending(rows: Tensor) -> Tensor:
    """Each row [..., N] from its smallest value to its largest; NaN comes last."""
    if rows.device.type != "cpu":
        return rows.sort(-1).values
    # On a CPU with wide vectors NumPy's sort takes a tenth of the time of PyTorch's.
    return torch.from_numpy(np.sort(rows.numpy(), axis=-1))


def median(rows: Tensor) -> Tensor:
    """Median of each row [..., N], of two middle values the lower; NaN where any is."""
    if rows.device.type == "cpu":
        return rows.median(-1).values
    # PyTorch's own has no deterministic form on a GPU.
    rising = ascending(rows)
    last = rising[..., -1]
    return torch.where(last.isnan(), last, rising[..., (rows.shape[-1] - 1) // 2])


def patch_distances(grid: Grid, places: Tensor) -> Tensor:
    """Euclidean distance, in patches, from each of the patches `places` [Q] to all, [Q, N]."""
    x = _positions(grid, torch.empty(0, device=places.device))
    return (x[places, None] - x).square_().sum(-1).sqrt_()


def mean_distance(maps_QN: Tensor, grid: Grid, places: Tensor) -> Tensor:
    """``Σ p d``, mean distance of attention [..., Q] from its patch queries `places`, patches."""
    return (maps_QN * patch_distances(grid, places)).sum(-1)


def distance_ratio(distances_Q: Tensor, grid: Grid, places: Tensor) -> Tensor:
    """Mean distances [..., Q] from patch queries `places` over those of uniform attention.

    The uniform map is on all patches but the query. 0 would be all on itself, 1 is uniform.
    """
    uniform = patch_distances(grid, places).sum(-1) / (math.prod(grid) - 1)
    return distances_Q / uniform


def nearest_distance_ratio(
    maps_QN: Tensor, grid: Grid, excluded: Tensor | None, chunk: int = 256
) -> Tensor:
    """Distance ratio [..., Q] without a position of the query: the least one from any patch.

    ``min over v of Σ p_j d_vj / mean_j d_vj`` over the counted patches j: 1 for uniform, 0 for one
    patch. No more than `chunk` places v are looked at at once.
    """
    least: Tensor | None = None
    for places in torch.arange(maps_QN.shape[-1], device=maps_QN.device).split(chunk):
        distances = patch_distances(grid, places)
        if excluded is None:
            uniform = distances.mean(-1)
        else:
            others = max(maps_QN.shape[-1] - 1, 1)
            uniform = (distances.sum(-1) - distances[:, excluded].T) / others
        found = (maps_QN @ distances.T).div_(uniform).amin(-1)
        least = found if least is None else torch.minimum(least, found)
    assert least is not None
    return least


def locality(weighted_distance: Tensor, weighted_baseline: Tensor) -> Tensor:
    """Query-relative locality of a set of maps, from ``Σ_ij p_ij d_ij`` and ``Σ_ij p_ij d̄_j``.

    d̄_j is the mean distance of the queries from patch j, so a map that all queries share has
    locality 0 whatever it looks like, and 1 is each query on itself. Maps count the query's own
    patch. NaN where there is no distance at all.
    """
    return 1 - weighted_distance / torch.where(weighted_baseline > 0, weighted_baseline, torch.nan)


def mutual_information(mean_map_N: Tensor, mean_row_entropy: Tensor, queries: int) -> Tensor:
    """Normalised mutual information [...] of queries and keys (Park et al. 2023).

    From the mean map [..., N] of the queries, in which each has the same weight, and the mean
    entropy [...] of their maps, nats: ``I / √(H(q) H(k))`` with ``I = H(k) - mean H(row)``. 0 when
    all queries have one map, 1 for the identity; NaN where an entropy is 0.
    """
    of_keys = torch.special.entr(mean_map_N).sum(-1)
    information = (of_keys - mean_row_entropy).clamp(min=0)
    scale = of_keys * math.log(queries)
    return information / torch.where(scale > 0, scale, torch.nan).sqrt()


def positional_bias(mean_map_N: Tensor, counted: int) -> Tensor:
    """What of a map is alike in all images: ``B = 1 - H(mean map over images) / ln N``, [...].

    0 when the mean map is uniform, 1 when every image has the same single patch.
    """
    return 1 - torch.special.entr(mean_map_N).sum(-1) / math.log(counted)


def content_dependence(mean_map_N: Tensor, mean_entropy: Tensor, counted: int) -> Tensor:
    """What of a map depends on the image: C, ``H(mean map) - mean H(map)`` over ln N, [...].

    `mean_entropy` is over images, nats. 0 when all images have one map; B + C is the selectivity
    ``1 - mean H / ln N``.
    """
    return (torch.special.entr(mean_map_N).sum(-1) - mean_entropy) / math.log(counted)


def sink_concentration(received_T: Tensor) -> Tensor:
    """``ln(max c / median c)`` [...] of the attention c [..., T] that each token receives.

    c is 1 for uniform. A median below LEAST_MASS counts as that: so one key that takes all has a
    finite value, the largest there is, ``ln(T / LEAST_MASS)``.
    """
    return (received_T.amax(-1) / median(received_T).clamp(min=LEAST_MASS)).log()


def outlier_share(norms: Tensor) -> Tensor:
    """Share of tokens whose norm [..., N] is above ``median + 5 · 1.4826 · MAD`` (Darcet 2024,
    with a threshold that fits any model)."""
    middle = median(norms)[..., None]
    deviation = median((norms - middle).abs())[..., None]
    return (norms > middle + 5 * 1.4826 * deviation).float().mean(-1)


def beyond_uniform(mass: Tensor, tokens: int, counted: int = 1) -> Tensor:
    """Mass on `counted` of T tokens against uniform attention: ``(m - c/T) / (1 - c/T)``.

    0 for uniform, 1 for all of it, least ``-c/(T - c)``.
    """
    return (mass - counted / tokens) / (1 - counted / tokens)
