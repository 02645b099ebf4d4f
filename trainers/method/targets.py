"""From teacher outputs to targets: pure functions of logits [R, K] (R rows, K prototypes)."""

import torch
from torch import Tensor

from trainers.config import TargetsConfig
from trainers.system.world import World


def make_targets(
    logits: Tensor, center: Tensor, temperature: float, config: TargetsConfig, world: World
) -> tuple[Tensor, Tensor]:
    """Targets [R, K], rows sum to 1, and the next center [K]; only centering moves the center."""
    if config.kind == "sinkhorn":
        return sinkhorn(logits, temperature, config.sinkhorn_iterations, world), center
    if config.kind == "none":
        return torch.softmax(logits / temperature, dim=-1), center
    return centering(logits, center, temperature, config.center_momentum, world)


def centering(
    logits: Tensor, center: Tensor, temperature: float, momentum: float, world: World
) -> tuple[Tensor, Tensor]:
    """Centred and sharpened targets [R, K], and the next center [K] (Caron et al. 2021, eq. 4).

    ``softmax((logits - center) / temperature)``; the center becomes
    ``momentum · center + (1 - momentum) · mean`` with the mean over the rows of all workers, and
    stays where it is when there are none.
    """
    targets = torch.softmax((logits - center) / temperature, dim=-1)
    # In one sum over workers: rows may be many on one and few on another.
    rows = torch.full_like(logits[:1, :1], len(logits)) if len(logits) else logits.new_zeros(1, 1)
    total = world.sum(torch.cat([logits.sum(0), rows[0]]))
    mean = total[:-1] / total[-1].clamp(min=1)
    moved = momentum * center + (1 - momentum) * mean
    return targets, torch.where(total[-1] > 0, moved, center)


def sinkhorn(logits: Tensor, temperature: float, iterations: int, world: World) -> Tensor:
    """Targets [R, K] by Sinkhorn-Knopp (Caron et al. 2020, SwAV, listing in appendix A).

    ``exp(logits / temperature)`` is scaled so that, over the rows of all workers, every prototype
    has the same mass, and then so that every row sums to 1; `iterations` times.
    """
    # Subtracting the largest logit, a common factor that the first scaling removes, bounds exp by
    # 1, and float64 keeps cosines above zero down to a temperature of 0.003.
    largest = world.largest(logits.detach().amax() if len(logits) else logits.new_tensor(-1.0))
    targets = torch.exp((logits.to(torch.float64) - largest.to(torch.float64)) / temperature)
    for _ in range(iterations):
        targets = targets / world.sum(targets.sum(0)).clamp(min=torch.finfo(torch.float64).tiny)
        targets = targets / targets.sum(1, keepdim=True)
    return targets.to(logits.dtype)
