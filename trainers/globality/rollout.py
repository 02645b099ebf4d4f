"""Attention rollout (Abnar & Zuidema 2020), in memory linear in tokens.

``R = Ã_L … Ã_1`` with ``Ã = (mean over heads of A + I) / 2``. Only the rows that are asked for are
made: ``e_t Ã_L``, times ``Ã_{L-1}``, and so on, each attention made again in parts from queries
and keys.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.globality.accumulator import Accumulator
from trainers.globality.by_image import ImageSums
from trainers.globality.functionals import conditional
from trainers.globality.statistics import BYTES, of_maps
from trainers.globality.tokens import Tokens
from trainers.model.attention import within
from trainers.model.vit import Layer


def rollout(
    layers: Sequence[tuple[Tensor, Tensor]],
    asked: Tensor,
    memory: float,
    allowed: Tensor | None = None,
) -> Tensor:
    """Rows of the rollout of the tokens `asked` (int64 [Q]), [B, Q, T]; each sums to 1.

    `layers` are queries and keys [B, H, T, K] of each block, first to last. `memory` bounds the
    attention weights held at once, MiB. `allowed`, bool [T, T], are the keys that each query may
    attend to in every block.
    """
    queries, keys = layers[0]
    images, heads, count = queries.shape[:3]
    rows_BQT = torch.zeros(images, len(asked), count, device=queries.device)
    rows_BQT[:, torch.arange(len(asked)), asked] = 1.0
    at_once = max(1, int(memory / (images * heads * count * BYTES / 2**20)))
    with torch.autocast(queries.device.type, enabled=False):
        for queries, keys in reversed(layers):
            scaled = queries.float() * queries.shape[-1] ** -0.5
            keys_KT = keys.float().transpose(2, 3)
            moved = torch.zeros_like(rows_BQT)
            for start in range(0, count, at_once):
                part = slice(start, start + at_once)
                scores = scaled[:, :, part] @ keys_KT
                scores = within(scores, None if allowed is None else allowed[part])
                attention = torch.softmax(scores, dim=-1).mean(1)
                moved += rows_BQT[:, :, part] @ attention
            rows_BQT = (rows_BQT + moved) / 2
    return rows_BQT


class RolloutStatistics:
    """An observer that keeps queries and keys of all layers of a batch, for `finish`."""

    def __init__(
        self, tokens: Tokens, *, memory: float, of_images: ImageSums | None = None
    ) -> None:
        self.tokens = tokens
        self.memory = memory
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.allowed: Tensor | None = None
        self.total = Accumulator(of_images=of_images)

    def __call__(self, layer: Layer) -> None:
        """Keep one layer of a batch."""
        self.kept.append((layer.queries, layer.keys))
        self.allowed = layer.allowed

    def finish(self) -> None:
        """Measure the rollout of the batch, and forget it."""
        kinds = self.tokens.rows()
        asked = torch.cat([places for _, places, _ in kinds])
        rows = rollout(self.kept, asked, self.memory, self.allowed)
        parts = rows[:, None].split([len(places) for _, places, _ in kinds], dim=2)
        with torch.autocast(rows.device.type, enabled=False):
            for (token, _, patches), part in zip(kinds, parts, strict=True):
                maps, mass = conditional(part, patches, self.tokens.first)
                measures = of_maps(maps, self.tokens.grid, patches) | {"patch_mass": mass}
                for name, values in measures.items():
                    self.total.add(("rollout", token, name, 0), values)
        self.kept = []
