"""The self-distillation loss: a pure function of targets and logits."""

import torch
from torch import Tensor


def distillation(targets: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy over pairs of different views (Caron et al. 2021, eq. 3), a scalar.

    `targets` [G, B, K] of G teacher views, rows sum to 1; `logits` [V, B, K] of V student views,
    the first G of which are the teacher's. Pairs of a view with itself do not count.
    """
    log_student = torch.log_softmax(logits / temperature, dim=-1)
    pairs = -torch.einsum("gbk,vbk->gv", targets, log_student) / targets.shape[1]
    different = torch.ones_like(pairs).fill_diagonal_(0)
    return (pairs * different).sum() / different.sum()


def entropy(probabilities: Tensor) -> Tensor:
    """Mean Shannon entropy over rows of [..., K], nats, a scalar."""
    return torch.special.entr(probabilities).sum(-1).mean()
