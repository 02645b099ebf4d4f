"""M11, what the output of a token depends on: influence of patches, and gradient reach.

Both give a map over patches for each image and token, to which the functionals of attention maps
apply; they say what attention weights cannot: what information arrives.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from trainers.forward_draws import ForwardDraws
from trainers.globality.accumulator import Accumulator
from trainers.globality.functionals import Grid
from trainers.globality.statistics import of_maps
from trainers.globality.tokens import Tokens
from trainers.keys import Stream
from trainers.vit import Features

Model = Callable[[Tensor, ForwardDraws | None], Features]
Replacement = Literal["mean", "other"]

PROBES = 4
"""Random directions of an output whose gradients are taken."""

REACH_QUERIES = 8
"""Patch queries whose gradients are taken, at most: each costs a backward pass."""

LEAST_RELIANCE = 1e-10
"""Below this sum of influences there is no map to speak of: rounding alone gives as much."""


@torch.no_grad()
def influence(
    model: Model,
    crops: Tensor,
    draws: ForwardDraws | None,
    asked: Tensor,
    grid: Grid,
    replacement: Replacement,
) -> Tensor:
    """How much each patch changes the output of the tokens `asked` (int64 [Q]), [B, Q, N].

    ``1 - cos(z(x), z(x with patch j replaced))``, in [0, 2]. A patch is replaced by the mean of
    all images at its place or by that of the image before, never by zeros, which are no image and
    overstate (Parodi et al. 2026). Crops are [B, 3, S, S] with B of 2 or more.
    """
    assert len(crops) > 1, "one image has no other"
    substitute = crops.mean(0, keepdim=True) if replacement == "mean" else crops.roll(1, 0)
    height, width = (side // parts for side, parts in zip(crops.shape[2:], grid, strict=True))

    def outputs(images: Tensor) -> Tensor:
        return functional.normalize(model(images, draws).tokens[:, asked].float(), dim=-1)

    before = outputs(crops)
    found = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            there = (
                slice(None),
                slice(None),
                slice(row * height, (row + 1) * height),
                slice(column * width, (column + 1) * width),
            )
            changed = crops.clone()
            changed[there] = substitute[there]
            # 1 - cos of unit vectors, without its cancellation.
            found.append((outputs(changed) - before).square().sum(-1) / 2)
    return torch.stack(found, dim=-1)


def gradient_reach(
    model: Model,
    crops: Tensor,
    draws: ForwardDraws | None,
    asked: Tensor,
    grid: Grid,
    stream: Stream,
) -> Tensor:
    """Size of the Jacobian of the tokens `asked` (int64 [Q]) by patch of the input, [B, Q, N].

    ``‖∂z_t / ∂x_j‖_F``, estimated from PROBES random directions u of the output by
    ``mean ‖∂(u · z_t) / ∂x_j‖²`` (Hutchinson), drawn from `stream`. The effective receptive field
    of Luo et al. (2016), of a whole output.
    """
    with torch.enable_grad():
        crops = crops.detach().requires_grad_()
        outputs = model(crops, draws).tokens
        directions = stream.normal(torch.Size((PROBES, outputs.shape[-1])), 1.0).to(outputs)
        found = []
        for token in asked.tolist():
            squares = torch.zeros(len(crops), *grid, device=crops.device)
            for direction in directions:
                along = (outputs[:, token] @ direction).sum()
                (gradient,) = torch.autograd.grad(along, crops, retain_graph=True)
                squares += functional.avg_pool2d(
                    gradient.float().square().sum(1, keepdim=True),
                    tuple(side // parts for side, parts in zip(crops.shape[2:], grid, strict=True)),
                    divisor_override=1,
                )[:, 0]
            found.append((squares / PROBES).sqrt().flatten(1))
    return torch.stack(found, dim=1)


def measure_causes(
    model: Model,
    crops: Tensor,
    draws: ForwardDraws | None,
    tokens: Tokens,
    *,
    replacement: Replacement,
    seed: int,
) -> Accumulator:
    """The functionals of influence and reach maps of a batch of images, and total reliance."""
    total = Accumulator()
    stream = Stream(seed, "gradient reach/directions")
    for token, places, patches in tokens.rows():
        step = math.ceil(len(places) / REACH_QUERIES)
        some = slice(step // 2, None, step) if token == "patch" else slice(None)
        reach = gradient_reach(model, crops, draws, places[some], tokens.grid, stream)
        _add(total, "reach", token, reach, tokens.grid, None if patches is None else patches[some])
    asked = torch.cat([places for _, places, _ in tokens.rows()])
    maps = influence(model, crops, draws, asked, tokens.grid, replacement)
    start = 0
    for token, places, patches in tokens.rows():
        part = maps[:, start : start + len(places)]
        start += len(places)
        _add(total, "influence", token, part, tokens.grid, patches)
    return total


def _add(
    total: Accumulator,
    group: str,
    token: str,
    strengths_BQN: Tensor,
    grid: Grid,
    patches: Tensor | None,
) -> None:
    if patches is not None:
        own = patches[:, None].expand(*strengths_BQN.shape[:-1], 1)
        strengths_BQN = strengths_BQN.scatter(-1, own, 0.0)
    reliance = strengths_BQN.sum(-1)
    known = torch.where(reliance < LEAST_RELIANCE, torch.nan, reliance)
    maps = (strengths_BQN / known[..., None])[:, None]
    measures = of_maps(maps, grid, patches) | {"reliance": reliance[:, None]}
    for name, values in measures.items():
        total.add((group, token, name, 0), values)
