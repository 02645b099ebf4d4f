"""The vision transformer (Dosovitskiy et al. 2021), returning what the instruments need as values.

Shapes: B images, T = 1 + N tokens ([CLS] first, then N patches row by row), D features, H heads,
K features of a head.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.config import ModelConfig
from trainers.keys import Stream


@dataclass(frozen=True, kw_only=True)
class Features:
    """Normalised output tokens of a batch, and what attention was made of when asked for."""

    cls: Tensor
    """[B, D]"""
    patches: Tensor
    """[B, N, D]"""
    grid: tuple[int, int]
    """rows and columns of patches; their product is N"""
    queries_keys: tuple[tuple[Tensor, Tensor], ...]
    """of each block, queries and keys [B, H, T, K]; attention is softmax(q kᵀ / √K)"""


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.projection = nn.Linear(config.width, config.width)

    def forward(self, tokens_BTD: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Mixed tokens [B, T, D], and the queries and keys that mixed them."""
        images, tokens, width = tokens_BTD.shape
        qkv = self.qkv(tokens_BTD).view(images, tokens, 3, self.heads, -1).transpose(1, 3)
        queries, keys, values = qkv.unbind(2)
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        mixed_BTD = mixed.transpose(1, 2).reshape(images, tokens, width)
        return self.projection(mixed_BTD), (queries, keys)


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to its input."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.expand = nn.Linear(config.width, hidden)
        self.contract = nn.Linear(hidden, config.width)

    def forward(self, tokens_BTD: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Tokens [B, T, D] after the block, and its queries and keys."""
        mixed, queries_keys = self.attention(self.norm1(tokens_BTD))
        tokens_BTD = tokens_BTD + mixed
        hidden = functional.gelu(self.expand(self.norm2(tokens_BTD)))
        return tokens_BTD + self.contract(hidden), queries_keys


class VisionTransformer(nn.Module):
    """A ViT with learned patch positions and a choice of what position [CLS] carries.

    Positions belong to a grid of `image_size` // patch_size patches a side; other image sizes
    interpolate them (bicubic, as DINO does). A tied [CLS] carries the position of one patch of the
    full grid, whatever the size of the image.
    """

    def __init__(self, config: ModelConfig, image_size: int) -> None:
        super().__init__()
        side = image_size // config.patch_size
        self.config = config
        self.grid = (side, side)
        self.embedding = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.cls = nn.Parameter(torch.zeros(1, 1, config.width))
        self.position = nn.Parameter(torch.zeros(1, side * side, config.width))
        if config.cls_position == "learned":
            self.cls_position = nn.Parameter(torch.zeros(1, 1, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)

    def forward(self, images: Tensor) -> Features:
        """Features of images [B, 3, S, S]; S a multiple of the patch size."""
        patches_BDhw = self.embedding(images)
        grid = (patches_BDhw.shape[2], patches_BDhw.shape[3])
        patches_BND = patches_BDhw.flatten(2).transpose(1, 2) + self._positions(grid)
        cls_B1D = self._positioned_cls().expand(len(images), -1, -1)
        tokens_BTD = torch.cat([cls_B1D, patches_BND], dim=1)
        queries_keys = []
        for block in self.blocks:
            tokens_BTD, pair = block(tokens_BTD)
            queries_keys.append(pair)
        tokens_BTD = self.norm(tokens_BTD)
        return Features(
            cls=tokens_BTD[:, 0],
            patches=tokens_BTD[:, 1:],
            grid=grid,
            queries_keys=tuple(queries_keys),
        )

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        if grid == self.grid:
            return self.position
        return _interpolation(self.grid, grid, self.position.device) @ self.position

    def _positioned_cls(self) -> Tensor:
        if self.config.cls_position == "learned":
            return self.cls + self.cls_position
        if self.config.cls_position == "tied":
            row, column = self.config.cls_tied_patch
            return self.cls + self.position[:, row * self.grid[1] + column]
        return self.cls


@functools.cache
def _interpolation(full: tuple[int, int], part: tuple[int, int], device: torch.device) -> Tensor:
    """Bicubic interpolation between grids as a matrix: its gradient is the same bits each time."""
    each_1Nhw = torch.eye(full[0] * full[1], device=device).unflatten(1, full)[None]
    return functional.interpolate(each_1Nhw, part, mode="bicubic").flatten(2)[0].T.contiguous()


def initialise(module: nn.Module, seed: int, deviation: float) -> None:
    """Set every parameter from a stream keyed by its own name.

    Two modules share the values of every parameter that both have under one name and shape.
    Matrices, tokens and positions: normal of the given deviation (DINO: 0.02). Convolutions:
    uniform in ± 1/√fan_in, PyTorch's default, which DINO keeps. Biases 0, norm scales 1.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            stream = Stream(seed, f"initialisation/{name}")
            if parameter.ndim == 1:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            elif parameter.ndim == 4:
                places = torch.arange(parameter.numel())
                bound = 1 / math.sqrt(parameter[0].numel())
                uniform = stream.uniform(torch.zeros((), dtype=torch.int64), places)
                parameter.copy_(((2 * uniform - 1) * bound).view_as(parameter))
            else:
                parameter.copy_(stream.normal(parameter.shape, deviation))
