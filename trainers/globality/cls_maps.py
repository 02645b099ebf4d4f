"""Maps of one query for pictures: its attention in every layer and head, in O(T) each."""

import math

import torch
from torch import Tensor

from trainers.globality.functionals import conditional
from trainers.globality.statistics import BYTES
from trainers.model.attention import within
from trainers.model.vit import Layer


class QueryMaps:
    """An observer that keeps what one token attends to: maps over patches of every layer.

    `query` is the token, `first` the number of tokens before the patches. A patch does not count
    itself. `memory` bounds the attention weights held at once, MiB (at least those of one image).
    """

    def __init__(self, query: int, first: int, *, memory: float = math.inf) -> None:
        self.query, self.first, self.memory = query, first, memory
        self.kept: list[Tensor] = []
        """of each layer [B, H, N], float32, each sums to 1 (NaN: nothing on patches)"""

    def __call__(self, layer: Layer) -> None:
        """Take one layer of a batch."""
        images, heads, count = layer.keys.shape[:3]
        at_once = max(1, int(min(images, self.memory / (heads * count * BYTES / 2**20))))
        with torch.autocast(layer.queries.device.type, enabled=False):
            parts = zip(layer.queries.split(at_once), layer.keys.split(at_once), strict=True)
            maps = [self._maps(queries, keys, layer.allowed) for queries, keys in parts]
            self.kept.append(torch.cat(maps))

    def _maps(self, queries: Tensor, keys: Tensor, allowed: Tensor | None) -> Tensor:
        query = queries[:, :, self.query, None].float()
        scores = query @ keys.float().transpose(2, 3) * query.shape[-1] ** -0.5
        scores = within(scores, None if allowed is None else allowed[self.query])
        own = None
        if self.query >= self.first:
            own = torch.tensor([self.query - self.first], device=query.device)
        maps, _ = conditional(scores.softmax(-1), own, self.first)
        return maps[:, :, 0].cpu()
