"""AdamW as DINO uses it: which parameters decay, clipping of each gradient, freezing."""

import torch
from torch import Tensor, nn

from trainers.config import OptimizerConfig
from trainers.system.world import World, here, is_shared


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with two groups: parameters that decay, then biases and norms, which do not.

    As in DINO, everything with two or more axes decays, [CLS] and positions included.
    """
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1]},
    ]
    return torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), fused=True)


def step_where_finite(optimizer: torch.optim.AdamW, numbers: Tensor) -> None:
    """One step, which the device leaves out where one of `numbers` is not finite."""
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.found_inf = 1 - numbers.isfinite().all().float()  # type: ignore[attr-defined]
    optimizer.step()


def set_schedule(optimizer: torch.optim.AdamW, learning_rate: float, weight_decay: float) -> None:
    """The learning rate of both groups, and the weight decay of the one that decays."""
    decaying, plain = optimizer.param_groups
    decaying["lr"] = plain["lr"] = learning_rate
    decaying["weight_decay"], plain["weight_decay"] = weight_decay, 0.0


def clip_gradients(parameters: list[nn.Parameter], largest: float, world: World) -> Tensor:
    """Scale each gradient down to norm `largest` where it exceeds it, in place.

    Clips each parameter on its own, as DINO does. Returns the norm of all gradients together
    before clipping, a scalar.
    """
    whole = [p.grad for p in parameters if p.grad is not None]
    gradients = here(whole)
    each = torch._foreach_norm(gradients)
    if parts := [one for one, gradient in zip(each, whole, strict=True) if is_shared(gradient)]:
        torch._foreach_copy_(parts, list(world.sum(torch.stack(parts) ** 2).sqrt().unbind()))
    norms = torch.stack(each)
    scales = (largest / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(scales.unbind()))
    return norms.norm()
