"""The projection head (Caron et al. 2021, appendix C): an MLP, unit norm, prototypes."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.config import HeadConfig
from trainers.system.world import World


class ProjectionHead(nn.Module):
    """Features [B, D] to logits [B, K]: the product with each of K prototypes.

    Prototypes have unit norm, so logits are cosines, unless `norm_last_layer` is off: then each
    learns its norm, from 1 on.
    """

    def __init__(self, width: int, config: HeadConfig) -> None:
        super().__init__()
        sizes = [width] + [config.hidden] * (config.layers - 1) + [config.bottleneck]
        self.layers = nn.ModuleList(
            nn.Linear(fan_in, fan_out) for fan_in, fan_out in itertools.pairwise(sizes)
        )
        hidden = sizes[1:-1] if config.batch_norm else []
        self.batch_norms = nn.ModuleList(BatchNorm(size) for size in hidden)
        self.prototypes = nn.Parameter(torch.zeros(config.prototypes, config.bottleneck))
        if not config.norm_last_layer:
            self.prototype_norms = nn.Parameter(torch.ones(config.prototypes, 1))

    @property
    def last_layer(self) -> list[nn.Parameter]:
        """The parameters that DINO keeps still in the first steps."""
        return [p for name, p in self.named_parameters() if name.startswith("prototype")]

    def forward(self, features_BD: Tensor, world: World | None = None) -> Tensor:
        """Logits [B, K], float32.

        In training mode, batch norm takes its statistics over the rows of all workers of `world`.
        """
        hidden = features_BD
        for number, layer in enumerate(self.layers[:-1]):
            hidden = layer(hidden)
            if self.batch_norms:
                hidden = self.batch_norms[number](hidden, world)
            hidden = functional.gelu(hidden)
        embedding = functional.normalize(self.layers[-1](hidden), dim=-1)
        logits = functional.linear(embedding, functional.normalize(self.prototypes, dim=-1)).float()
        if hasattr(self, "prototype_norms"):
            logits = logits * self.prototype_norms[:, 0]
        return logits


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) over the rows of all workers, in float32.

    PyTorch's synchronised one runs on GPUs only.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, features: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_variance", torch.ones(features))

    def forward(self, rows_BF: Tensor, world: World | None) -> Tensor:
        """Rows [B, F] standardised, by the running moments in evaluation mode."""
        rows_BF = rows_BF.float()
        if not self.training:
            mean, variance = self.running_mean, self.running_variance
        else:
            count = len(rows_BF) * (world.size if world else 1)
            mean = _sum_over_workers(rows_BF, world) / count
            variance = _sum_over_workers((rows_BF - mean) ** 2, world) / count
            with torch.no_grad():
                unbiased = variance * (count / max(count - 1, 1))
                self.running_mean.lerp_(mean, self.momentum)
                self.running_variance.lerp_(unbiased, self.momentum)
        return (rows_BF - mean) * (variance + self.epsilon).rsqrt() * self.weight + self.bias


def _sum_over_workers(rows_BF: Tensor, world: World | None) -> Tensor:
    total = rows_BF.sum(0)
    return world.sum_with_gradient(total) if world else total
