"""The projection head (Caron et al. 2021, appendix C): an MLP, unit norm, unit-norm prototypes."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.config import HeadConfig


class ProjectionHead(nn.Module):
    """Features [B, D] to logits [B, K]: the cosine with each of K prototypes."""

    def __init__(self, width: int, config: HeadConfig) -> None:
        super().__init__()
        sizes = [width] + [config.hidden] * (config.layers - 1) + [config.bottleneck]
        self.layers = nn.ModuleList(
            nn.Linear(fan_in, fan_out) for fan_in, fan_out in itertools.pairwise(sizes)
        )
        self.prototypes = nn.Parameter(torch.zeros(config.prototypes, config.bottleneck))

    def forward(self, features_BD: Tensor) -> Tensor:
        """Logits [B, K] in [-1, 1]."""
        hidden = features_BD
        for layer in self.layers[:-1]:
            hidden = functional.gelu(layer(hidden))
        embedding = functional.normalize(self.layers[-1](hidden), dim=-1)
        return functional.linear(embedding, functional.normalize(self.prototypes, dim=-1))
