"""Layers and layouts made by hand."""

import math

import torch
from torch import Tensor

from trainers.globality.tokens import Tokens
from trainers.grid import Grid
from trainers.model.vit import Layer


def layout(
    grid: Grid,
    *,
    has_cls: bool = True,
    registers: int = 0,
    fixed_patch: int | None = None,
    queries: list[int] | None = None,
) -> Tokens:
    chosen = list(range(math.prod(grid))) if queries is None else queries
    return Tokens(
        grid=grid,
        has_cls=has_cls,
        registers=registers,
        patch_queries=torch.tensor(chosen),
        fixed_patch=fixed_patch,
    )


def random_layer(
    seed: int, images: int, heads: int, tokens: int, *, number: int = 1, width: int = 4
) -> Layer:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return 1.5 * torch.randn(*shape, generator=generator)

    queries, keys, values = (normal(images, heads, tokens, width) for _ in range(3))
    return Layer(
        number=number,
        queries=queries,
        keys=keys,
        values=values,
        projection=normal(heads, width, heads * width),
        normalised=normal(images, tokens, heads * width),
        tokens=normal(images, tokens, heads * width),
    )


def attending(maps: Tensor, number: int = 1) -> Layer:
    """A layer whose attention [B, H, T, T] is `maps`, to rounding: keys are unit vectors."""
    images, heads, tokens, _ = maps.shape
    logits = maps.clamp(min=1e-30).log() * math.sqrt(tokens)
    keys = torch.eye(tokens).expand(images, heads, -1, -1)
    features = torch.randn(images, tokens, 4, generator=torch.Generator().manual_seed(0))
    return Layer(
        number=number,
        queries=logits,
        keys=keys,
        values=keys,
        projection=torch.eye(tokens).expand(heads, -1, -1),
        normalised=features,
        tokens=features,
    )


def part(layer: Layer, images: slice | list[int]) -> Layer:
    """Some images of a layer."""
    return Layer(
        number=layer.number,
        queries=layer.queries[images],
        keys=layer.keys[images],
        values=layer.values[images],
        projection=layer.projection,
        normalised=layer.normalised[images],
        tokens=layer.tokens[images],
    )
