"""Multi-head self-attention.

Shapes: B images, T tokens, D features, H heads, K features of a head.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.config import ModelConfig
from trainers.model.positions import rotate
from trainers.model.windows import Window, Windows

FUSED_KERNEL_FROM_TOKENS = 65
"""Tokens from which on attention is computed by the fused kernel on a CPU, too."""

Rotation = tuple[Tensor, Tensor]
Heads = tuple[Tensor, Tensor, Tensor]
Segments = tuple[tuple[int, int], ...]
"""Of images that come one after the other: how many of one size, and tokens of each."""


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.projection = nn.Linear(config.width, config.width)

    def forward(
        self,
        tokens_BTD: Tensor,
        rotation: Rotation | None,
        wanted: int,
        segments: Segments | None = None,
        windows: Windows = (),
    ) -> tuple[Tensor, Heads]:
        """Mixed tokens [B, wanted, D] of the first ones, and queries, keys and values of the heads.

        With fewer than all wanted, nothing is computed for the queries of the others. With
        `segments`, all are wanted, and B is 1.
        """
        images, tokens, width = tokens_BTD.shape
        if wanted == tokens:
            queries, keys, values = self._by_head(self.qkv(tokens_BTD), 3)
        else:
            weight_q, weight_kv = self.qkv.weight.split([width, 2 * width])
            bias_q, bias_kv = self.qkv.bias.split([width, 2 * width])
            some = tokens_BTD[:, :wanted]
            (queries,) = self._by_head(functional.linear(some, weight_q, bias_q), 1)
            pair = functional.linear(tokens_BTD, weight_kv, bias_kv)
            keys, values = self._by_head(pair, 2)
        if rotation is not None:
            cosine, sine = rotation
            queries = rotate(queries, cosine[:wanted], sine[:wanted])
            keys = rotate(keys, cosine, sine)
        if segments is None:
            window = windows[0] if windows else Window()
            queries = window.asked(queries)
            allowed = None if window.allowed is None else window.allowed[:wanted]
            mixed = attend(queries, keys, values, allowed)
        else:
            mixed = attend_packed(queries, keys, values, segments, windows)
        mixed_BTD = mixed.transpose(1, 2).reshape(images, wanted, width)
        return self.projection(mixed_BTD), (queries, keys, values)

    def _by_head(self, projected: Tensor, parts: int) -> list[Tensor]:
        """[B, T, parts · D] as so many of [B, H, T, K]."""
        images, tokens, _ = projected.shape
        # Parted first, so that gradients come together in the order of what was projected.
        each = projected.view(images, tokens, parts, self.heads, -1).unbind(2)
        return [one.transpose(1, 2) for one in each]


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, allowed_QT: Tensor | None = None
) -> Tensor:
    """Values [B, H, Q, K] mixed by softmax(q kᵀ / √K); keys and values are [B, H, T, K].

    The softmax is over the keys that are allowed to a query, bool; over all where none is given.
    """
    # On CPUs the fused kernel is slower than plain products until their scores leave the cache.
    if queries.device.type == "cpu" and keys.shape[2] < FUSED_KERNEL_FROM_TOKENS:
        scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(2, 3)
        return within(scores, allowed_QT).softmax(dim=-1) @ values
    return functional.scaled_dot_product_attention(queries, keys, values, allowed_QT)


def within(scores_QT: Tensor, allowed_QT: Tensor | None) -> Tensor:
    """Scores [..., Q, T] with -∞ for the keys that are not allowed to a query."""
    return scores_QT if allowed_QT is None else scores_QT.masked_fill(~allowed_QT, -math.inf)


def attend_packed(
    queries: Tensor, keys: Tensor, values: Tensor, segments: Segments, windows: Windows = ()
) -> Tensor:
    """The same of images one after the other, [1, H, T of all, K]: each attends to itself alone."""
    # Token by token as in memory, and all parts at once: gradients come together in one copy.
    sizes = [images * tokens for images, tokens in segments]
    rows = [one.squeeze(0).transpose(0, 1).split(sizes) for one in (queries, keys, values)]
    mixed = []
    for number, segment in enumerate(segments):
        own_queries, own_keys, own_values = (
            one[number].unflatten(0, segment).transpose(1, 2) for one in rows
        )
        window = windows[number] if windows else Window()
        part = attend(window.asked(own_queries), own_keys, own_values, window.allowed)
        mixed.append(part.transpose(1, 2).flatten(0, 1))
    return torch.cat(mixed).transpose(0, 1)[None]
