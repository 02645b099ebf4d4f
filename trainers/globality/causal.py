"""What the output of a token depends on: influence of patches, and gradient reach.

Both give a map over patches for each image and token, to which the functionals of attention maps
apply; they say what attention weights cannot: what information arrives.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from trainers.globality.accumulator import Accumulator
from trainers.globality.by_image import ImageSums
from trainers.globality.statistics import of_maps
from trainers.globality.tokens import Tokens, spread_over_rings
from trainers.grid import Grid
from trainers.model.vit import Features
from trainers.randomness.forward_draws import ForwardDraws
from trainers.randomness.streams import Stream

Model = Callable[[Tensor, ForwardDraws | None], Features]
Replacement = Literal["mean", "other", "moved"]

PROBES = 4
"""Random directions of an output whose gradients are taken."""

REACH_QUERIES = 8
"""Patch queries whose gradients are taken, at most: each costs PROBES backward passes."""

LEAST_RELIANCE = 1e-10
"""Below this sum of influences there is no map to speak of: rounding alone gives as much."""


def substitutes(crops: Tensor, replacement: Replacement, grid: Grid) -> Tensor:
    """What patches of the images [B, 3, S, S] are replaced with, of the same shape; B is 2 or more.

    The mean of all images, the image before, or the image itself moved by half its grid (its
    patches elsewhere); never zeros, which are no image and overstate (Parodi et al. 2026).
    """
    assert len(crops) > 1, "one image has no other"
    if replacement == "mean":
        return crops.mean(0).expand_as(crops)
    if replacement == "other":
        return crops.roll(1, 0)
    half = [side // parts * (parts // 2) for side, parts in zip(crops.shape[2:], grid, strict=True)]
    return crops.roll(half, (2, 3))


@torch.no_grad()
def influence(
    model: Model,
    crops: Tensor,
    draws: ForwardDraws | None,
    asked: Tensor,
    grid: Grid,
    substitute: Tensor,
) -> Tensor:
    """How much each patch changes the output of the tokens `asked` (int64 [Q]), [B, Q, N].

    ``1 - cos(z(x), z(x with patch j replaced))``, in [0, 2]. A patch of the crops [B, 3, S, S] is
    replaced by that of `substitute`, [B, 3, S, S], at its place.
    """
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
    batches: Sequence[tuple[Tensor, ForwardDraws | None]],
    tokens: Tokens,
    *,
    replacement: Replacement,
    seed: int,
    others: Tensor | None = None,
    share: slice = slice(None),
    of_images: ImageSums | None = None,
) -> tuple[Accumulator, Tensor, Tensor]:
    """The functionals of influence and reach maps of images, and total reliance.

    `batches` are images [B, 3, S, S] with their draws, two images or more in all; each batch goes
    through the model as one. The mean that stands in for a patch is theirs, or that of `others`
    [M, 3, S, S]. Of each batch only the images of `share` are measured, of which `of_images`
    keeps values. Also returned: their influence on every measured token, [images, Q, N], in the
    order of `tokens.rows()`, and the numbers of these images among all, int64 [images].
    """
    total = Accumulator(of_images=of_images)
    stream = Stream(seed, "gradient reach/directions")
    together = torch.cat([crops for crops, _ in batches])
    replaced = substitutes(together, replacement, tokens.grid)
    if replacement == "mean" and others is not None:
        replaced = substitutes(others, replacement, tokens.grid)[:1].expand_as(together)
    device = tokens.patch_queries.device
    some = spread_over_rings(tokens.grid, REACH_QUERIES, device)
    kinds = tokens.rows()
    asked = torch.cat([places for _, places, _ in kinds])
    start = 0
    numbers: list[int] = []
    every = [torch.empty(0, len(asked), tokens.patches, device=device)]
    for crops, draws in batches:
        substitute = replaced[start : start + len(crops)][share]
        measured = range(start, start + len(crops))[share]
        start += len(crops)
        rows = torch.arange(len(crops), device=crops.device)[share]
        if not len(rows):
            continue
        crops, draws = crops[share], draws and draws.rows(rows)
        for token, places, patches in kinds:
            if token == "patch":
                places, patches = tokens.first + some, some
            reach = gradient_reach(model, crops, draws, places, tokens.grid, stream)
            _add(total, "reach", token, reach, tokens.grid, patches, measured)
        maps = influence(model, crops, draws, asked, tokens.grid, substitute)
        every.append(maps)
        numbers += measured
        parts = maps.split([len(places) for _, places, _ in kinds], dim=1)
        for (token, _, patches), part in zip(kinds, parts, strict=True):
            _add(total, "influence", token, part, tokens.grid, patches, measured)
    return total, torch.cat(every), torch.tensor(numbers, dtype=torch.int64)


def _add(
    total: Accumulator,
    group: str,
    token: str,
    strengths_BQN: Tensor,
    grid: Grid,
    patches: Tensor | None,
    images: range,
) -> None:
    if patches is not None:
        own = patches[:, None].expand(*strengths_BQN.shape[:-1], 1)
        strengths_BQN = strengths_BQN.scatter(-1, own, 0.0)
    reliance = strengths_BQN.sum(-1)
    known = torch.where(reliance < LEAST_RELIANCE, torch.nan, reliance)
    maps = (strengths_BQN / known[..., None])[:, None]
    measures = of_maps(maps, grid, patches) | {"reliance": reliance[:, None]}
    for name, values in measures.items():
        total.add((group, token, name, 0), values, images)
