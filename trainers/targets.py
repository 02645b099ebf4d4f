"""From teacher outputs to targets: pure functions of logits [R, K] (R rows, K prototypes)."""

import torch
from torch import Tensor

from trainers.world import World


def centering(
    logits: Tensor, center: Tensor, temperature: float, momentum: float, world: World
) -> tuple[Tensor, Tensor]:
    """Centred and sharpened targets [R, K], and the next center [K] (Caron et al. 2021, eq. 4).

    ``softmax((logits - center) / temperature)``; the center becomes
    ``momentum · center + (1 - momentum) · mean`` with the mean over the rows of all workers.
    """
    targets = torch.softmax((logits - center) / temperature, dim=-1)
    total = world.sum(logits.sum(0))
    mean = total / (len(logits) * world.size)
    return targets, momentum * center + (1 - momentum) * mean


def sinkhorn(logits: Tensor, temperature: float, iterations: int, world: World) -> Tensor:
    """Targets [R, K] by Sinkhorn-Knopp (Caron et al. 2020, SwAV, listing in appendix A).

    ``exp(logits / temperature)`` is scaled so that, over the rows of all workers, every prototype
    has the same mass, and then so that every row sums to 1; `iterations` times.
    """
    # Logits are cosines: subtracting 1, a common factor that the first scaling removes, bounds
    # exp by 1, and float64 keeps it above zero down to a temperature of 0.003.
    targets = torch.exp((logits.to(torch.float64) - 1) / temperature)
    for _ in range(iterations):
        targets = targets / world.sum(targets.sum(0)).clamp(min=torch.finfo(torch.float64).tiny)
        targets = targets / targets.sum(1, keepdim=True)
    return targets.to(logits.dtype)
