"""The vision transformer (Dosovitskiy et al. 2021), returning what the instruments need as values.

Shapes: B images, T = P + N tokens (P first ones: [CLS] if there is one, then R registers; then N
patches row by row), D features, H heads, K features of a head.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainers.config import ModelConfig
from trainers.grid import Grid
from trainers.model.attention import Attention, Rotation, Segments
from trainers.model.positions import (
    interpolation,
    patch_at,
    patch_coordinates,
    point,
    rotary_table,
    sine_cosine,
)
from trainers.model.windows import Windows, windows
from trainers.randomness.forward_draws import ForwardDraws
from trainers.randomness.streams import Stream


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What happened in one block, for instruments: handed over as soon as the block is done."""

    number: int
    """counted from 1"""
    queries: Tensor
    """[B, H, T, K]; attention is softmax(q kᵀ / √K) over the allowed keys"""
    keys: Tensor
    """[B, H, T, K]"""
    values: Tensor
    """[B, H, T, K]"""
    projection: Tensor
    """[H, K, D], what each head's mixed values are multiplied with, LayerScale included"""
    normalised: Tensor
    """[B, T, D], the tokens that attention saw, behind its layer norm"""
    tokens: Tensor
    """[B, T, D], output of the block, before the last norm"""
    allowed: Tensor | None = None
    """bool [T, T], the keys that each query may attend to; None: all"""


Observer = Callable[[Layer], None]


@dataclass(frozen=True, kw_only=True)
class Features:
    """Normalised output tokens of a batch."""

    tokens: Tensor
    """[B, T, D], or [B, P, D] when only the first ones were asked for"""
    grid: Grid
    """rows and columns of patches; their product is N"""
    has_cls: bool
    registers_count: int

    @property
    def first(self) -> int:
        """P, the number of tokens that are not patches."""
        return self.has_cls + self.registers_count

    @property
    def cls(self) -> Tensor:
        """[B, D]"""
        assert self.has_cls, "there is no [CLS]"
        return self.tokens[:, 0]

    @property
    def registers(self) -> Tensor:
        """[B, R, D]"""
        return self.tokens[:, int(self.has_cls) : self.first]

    @property
    def patches(self) -> Tensor:
        """[B, N, D]"""
        assert self.tokens.shape[1] > self.first, "patches were not asked for"
        return self.tokens[:, self.first :]

    def patch_at(self, place: tuple[float, float]) -> Tensor:
        """The patch that holds the point at `place`, each coordinate in [-1, 1]; [B, D]."""
        return self.patches[:, patch_at(place, self.grid)]

    @property
    def image(self) -> Tensor:
        """What stands for an image where one vector must: [CLS], or without one the mean patch.

        [B, D]
        """
        return self.cls if self.has_cls else self.patches.mean(1)


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to its input.

    With `layer_scale`, each feature of what they give is scaled first (Touvron et al. 2021, CaiT,
    eq. 4). A `swiglu` MLP is ``W3 (silu(W1 x) · W2 x)`` (Shazeer 2020, eq. 6), its first two
    matrices one above the other in `expand`, as in facebookresearch/dinov2, swiglu_ffn.py.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.mlp_hidden
        self.gated = config.mlp == "swiglu"
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.expand = nn.Linear(config.width, (1 + self.gated) * hidden)
        self.contract = nn.Linear(hidden, config.width)
        for name in ("layer_scale1", "layer_scale2"):
            scale = nn.Parameter(torch.ones(config.width)) if config.layer_scale else None
            self.register_parameter(name, scale)

    def forward(
        self,
        tokens_BTD: Tensor,
        rotation: Rotation | None,
        keep: Tensor | None,
        wanted: int,
        number: int = 1,
        observe: Observer | None = None,
        segments: Segments | None = None,
        windows: Windows = (),
    ) -> Tensor:
        """The first `wanted` tokens after the block, which is the `number`-th.

        `keep` [B, 2, 1 or T, 1] are the factors of the two branches of each image. With `segments`,
        B is 1, and the tokens are those of images one after the other.
        """
        normalised = self.norm1(tokens_BTD)
        mixed, heads = self.attention(normalised, rotation, wanted, segments, windows)
        if self.layer_scale1 is not None:
            mixed = mixed * self.layer_scale1
        if keep is not None:
            mixed = mixed * keep[:, 0]
        tokens_BTD = tokens_BTD[:, :wanted] + mixed
        hidden = self.contract(self._activated(self.expand(self.norm2(tokens_BTD))))
        if self.layer_scale2 is not None:
            hidden = hidden * self.layer_scale2
        if keep is not None:
            hidden = hidden * keep[:, 1]
        tokens_BTD = tokens_BTD + hidden
        if observe is not None:
            queries, keys, values = heads
            projection = self.attention.projection.weight.T.unflatten(0, (-1, keys.shape[-1]))
            if self.layer_scale1 is not None:
                projection = projection * self.layer_scale1
            observe(
                Layer(
                    number=number,
                    queries=queries,
                    keys=keys,
                    values=values,
                    projection=projection,
                    normalised=normalised,
                    tokens=tokens_BTD,
                    allowed=windows[0].allowed if windows else None,
                )
            )
        return tokens_BTD

    def _activated(self, hidden: Tensor) -> Tensor:
        if not self.gated:
            return functional.gelu(hidden)
        gate, hidden = hidden.chunk(2, dim=-1)
        return functional.silu(gate) * hidden


class Placed(nn.Module):
    """Embedded patches with their position; a module, so that it can be compiled as blocks are."""

    def forward(
        self, patches_BDhw: Tensor, hidden: tuple[Tensor, Tensor] | None, position: Tensor | None
    ) -> Tensor:
        """Patches [B, N, D] with `position` [1, N, D] added.

        `hidden` are a mask, bool [B, N], and the token that stands for patches it hides.
        """
        patches_BND = patches_BDhw.flatten(2).transpose(1, 2)
        if hidden is not None:
            mask, token = hidden
            patches_BND = torch.where(mask[:, :, None], token.to(patches_BND.dtype), patches_BND)
        return patches_BND if position is None else patches_BND + position


class VisionTransformer(nn.Module):
    """A ViT with a choice of what position patches and [CLS] carry.

    Learned positions belong to a grid of `image_size` // patch_size patches a side; other image
    sizes interpolate them (bicubic, as DINO does). A tied [CLS] carries the position of one patch
    of the full grid, whatever the size of the image. With `masks` there is a token that stands for
    a hidden patch.
    """

    def __init__(self, config: ModelConfig, image_size: int, *, masks: bool = False) -> None:
        super().__init__()
        side = image_size // config.patch_size
        self.config = config
        self.grid = (side, side)
        self.checkpointing = False
        self.embedding = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.placed = Placed()
        if config.cls:
            self.cls = nn.Parameter(torch.zeros(1, 1, config.width))
            if config.cls_position == "learned":
                self.cls_position = nn.Parameter(torch.zeros(1, 1, config.width))
        if config.registers:
            self.registers = nn.Parameter(torch.zeros(1, config.registers, config.width))
        if config.patch_position == "learned":
            self.position = nn.Parameter(torch.zeros(1, side * side, config.width))
        if masks:
            self.mask = nn.Parameter(torch.zeros(1, 1, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(
        self,
        images: Tensor,
        draws: ForwardDraws | None = None,
        *,
        only_first: bool = False,
        observe: Observer | None = None,
    ) -> Features:
        """Features of images [B, 3, S, S]; S a multiple of the patch size.

        `only_first` leaves out what the last block computes for patches alone. `observe` is handed
        each layer in turn; what it does not keep is not kept.
        """
        draws = draws or ForwardDraws()
        tokens_BTD, grid = self.embed(images, draws)
        first = self.config.cls + self.config.registers
        rotation, own = self.rotation(grid), self.windows(grid)
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            wanted = first if only_first and number == last else tokens_BTD.shape[1]
            keep = None if draws.keep is None else draws.keep[:, number, :, None, None]
            tokens_BTD = self.through(
                block, tokens_BTD, rotation, keep, wanted, number, observe, windows=own
            )
        return self.features(tokens_BTD, grid)

    def through(
        self,
        block: nn.Module,
        tokens_BTD: Tensor,
        rotation: Rotation | None,
        keep: Tensor | None,
        wanted: int,
        number: int,
        observe: Observer | None = None,
        segments: Segments | None = None,
        windows: Windows = (),
    ) -> Tensor:
        """Tokens after a block, the `number`-th from 0."""
        if self.checkpointing and torch.is_grad_enabled():
            after: Tensor = checkpoint(
                block, tokens_BTD, rotation, keep, wanted, segments=segments, windows=windows,
                use_reentrant=False, preserve_rng_state=False,
            )  # fmt: skip
        else:
            after = block(
                tokens_BTD, rotation, keep, wanted, number + 1, observe, segments, windows
            )
        return after

    def features(self, tokens_BTD: Tensor, grid: Grid) -> Features:
        """What becomes of the tokens after the last block."""
        return Features(
            tokens=self.norm(tokens_BTD),
            grid=grid,
            has_cls=self.config.cls,
            registers_count=self.config.registers,
        )

    def embed(self, images: Tensor, draws: ForwardDraws) -> tuple[Tensor, Grid]:
        """Tokens [B, T, D] before the first block, and the grid of patches."""
        patches_BDhw = self._embedded(images)
        grid = (patches_BDhw.shape[2], patches_BDhw.shape[3])
        hidden = None if draws.mask is None else (draws.mask, self.mask)
        patches_BND = self.placed(patches_BDhw, hidden, self._positions(grid))
        parts = [patches_BND]
        if self.config.registers:
            parts.insert(0, self.registers.expand(len(images), -1, -1))
        if self.config.cls:
            parts.insert(0, self._positioned_cls(draws.cls_patch).expand(len(images), -1, -1))
        return (torch.cat(parts, dim=1) if len(parts) > 1 else patches_BND), grid

    def _embedded(self, images: Tensor) -> Tensor:
        """Embedded patches [B, D, h, w]."""
        if images.device.type == "cpu":
            patches_BDhw: Tensor = self.embedding(images)
            return patches_BDhw
        # The same as a product: with equal bits each time, the gradient of a convolution's weights
        # takes a GPU more time than the attention of several blocks.
        size = self.config.patch_size
        grid = (images.shape[2] // size, images.shape[3] // size)
        whole = images[..., : grid[0] * size, : grid[1] * size]
        pixels_BChpwp = whole.unflatten(3, (-1, size)).unflatten(2, (-1, size))
        pixels_BNF = pixels_BChpwp.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        weight, bias = self.embedding.weight, self.embedding.bias
        patches_BND = functional.linear(pixels_BNF, weight.flatten(1), bias)
        return patches_BND.transpose(1, 2).unflatten(2, grid)

    def _positions(self, grid: Grid) -> Tensor | None:
        """What is added to the patches of a grid, [1, N, D]."""
        if self.config.patch_position == "sincos":
            return self._sine_cosine(patch_coordinates(grid, self.embedding.weight.device))[None]
        if self.config.patch_position != "learned":
            return None
        if grid == self.grid:
            return self.position
        offset, device = self.config.interpolation_offset, self.position.device
        # As exact as those of the full grid. A device of shapes alone has no autocast.
        has_autocast = torch.amp.is_autocast_available(device.type)
        with torch.autocast(device.type, enabled=False) if has_autocast else nullcontext():
            return interpolation(self.grid, grid, offset, device) @ self.position

    def _sine_cosine(self, coordinates: Tensor) -> Tensor:
        return sine_cosine(coordinates, self.grid, self.config.width)

    def _positioned_cls(self, wandering: Tensor | None) -> Tensor:
        """[CLS] with its position, [1 or B, 1, D]."""
        kind = self.config.cls_position
        if kind == "learned":
            return self.cls + self.cls_position
        if kind == "sincos":
            here = point(self.config.cls_coordinate, self.cls.device)
            return self.cls + self._sine_cosine(here)
        if kind in ("tied", "random"):
            table = self._positions(self.grid)
            assert table is not None
            if kind == "random":
                assert wandering is not None, "a random [CLS] position needs draws"
                return self.cls + table[0, wandering, None]
            row, column = self.config.cls_tied_patch
            return self.cls + table[:, None, row * self.grid[1] + column]
        return self.cls

    def rotation(self, grid: Grid) -> Rotation | None:
        """Cosine and sine [T, K] of the rotation of each token; registers are not turned."""
        config = self.config
        if config.patch_position != "rotary":
            return None
        turned = config.cls and config.cls_position == "rotary"
        return rotary_table(
            grid,
            config.cls + config.registers,
            config.cls_coordinate if turned else None,
            0.0 if config.rotary_origin == "centre" else -1.0,
            config.width // config.heads,
            config.rotary_base,
            self.embedding.weight.device,
        )

    def windows(self, grid: Grid) -> Windows:
        """What each token of a grid attends to by construction; empty: to what it learns."""
        return windows(self.config, grid, self.embedding.weight.device)


def initialise(module: nn.Module, seed: int, deviation: float, layer_scale: float = 1.0) -> None:
    """Set every parameter from a stream keyed by its own name, as DINO's code does.

    Two modules share the values of every parameter that both have under one name and shape.
    Matrices, tokens and positions: normal of the given deviation (DINO: 0.02). Convolutions and
    prototypes: uniform in ± 1/√fan_in, PyTorch's default, which DINO keeps
    (facebookresearch/dino, vision_transformer.py: `last_layer` is made after `_init_weights`).
    The token of hidden patches 0, as in iBOT and DINOv2. Factors of LayerScale `layer_scale`.
    Biases 0, those of the patch embedding too, where DINO keeps PyTorch's ± 1/√fan_in; scales of
    norms and the norms of prototypes 1.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            stream = Stream(seed, f"initialisation/{name}")
            own = name.rsplit(".", 1)[-1]
            if own == "prototype_norms":
                parameter.fill_(1.0)
            elif own == "mask":
                parameter.fill_(0.0)
            elif own.startswith("layer_scale"):
                parameter.fill_(layer_scale)
            elif parameter.ndim == 1:
                parameter.fill_(0.0 if own == "bias" else 1.0)
            elif parameter.ndim == 4 or own == "prototypes":
                bound = 1 / math.sqrt(parameter[0].numel())
                uniform = stream.uniform_filled(parameter.shape)
                parameter.copy_(uniform.mul_(2).sub_(1).mul_(bound))
            else:
                parameter.copy_(stream.normal(parameter.shape, deviation))
