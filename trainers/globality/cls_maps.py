"""Maps of one query for pictures: its attention in every layer and head, in O(T) each."""

import torch
from torch import Tensor

from trainers.globality.functionals import conditional
from trainers.model.vit import Layer


class QueryMaps:
    """An observer that keeps what one token attends to: maps over patches of every layer.

    `query` is the token, `first` the number of tokens before the patches. A patch does not count
    itself.
    """

    def __init__(self, query: int, first: int) -> None:
        self.query, self.first = query, first
        self.kept: list[Tensor] = []
        """of each layer [B, H, N], float32, each sums to 1 (NaN: nothing on patches)"""

    def __call__(self, layer: Layer) -> None:
        """Take one layer of a batch."""
        with torch.autocast(layer.queries.device.type, enabled=False):
            query = layer.queries[:, :, self.query, None].float()
            scores = query @ layer.keys.float().transpose(2, 3) * query.shape[-1] ** -0.5
            own = None
            if self.query >= self.first:
                own = torch.tensor([self.query - self.first], device=query.device)
            maps, _ = conditional(scores.softmax(-1), own, self.first)
        self.kept.append(maps[:, :, 0].cpu())
