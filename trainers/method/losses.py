"""The losses: pure functions of targets, logits and features."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def distillation(targets: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy over pairs of different views (Caron et al. 2021, eq. 3), a scalar.

    `targets` [G, B, K] of G teacher views, rows sum to 1; `logits` [V, B, K] of V student views,
    the first G of which are the teacher's. Pairs of a view with itself do not count.
    """
    log_student = torch.log_softmax(logits / temperature, dim=-1)
    # All pairs at once: one sum of the targets of the other views meets each student view.
    total = targets.sum(0)
    teachers, views, images = len(targets), len(logits), targets.shape[1]
    others = torch.cat([total - targets, total.expand(views - teachers, -1, -1)])
    return -(others * log_student).sum() / (images * (teachers * views - teachers))


def dense_distillation(
    targets: Tensor,
    target_features: Tensor,
    groups: Sequence[tuple[Tensor, Tensor]],
    temperature: float,
) -> Tensor:
    """Mean cross-entropy of every patch with its match (Li et al. 2022, EsViT, eq. 3), a scalar.

    `targets` [G, B, N, K] and `target_features` [G, B, N, D] of the teacher's patches; `groups` of
    student views of one size, logits [V, B, M, K] and features [V, B, M, D], the teacher's views
    first. Each student patch is compared with the teacher patch of another view whose features are
    nearest to its own by cosine. The mean is over pairs of different views.
    """
    known = functional.normalize(target_features.detach().float(), dim=-1)
    total = targets.new_zeros(())
    view, pairs = 0, 0
    for logits, features in groups:
        log_student = torch.log_softmax(logits / temperature, dim=-1)
        asked = functional.normalize(features.detach().float(), dim=-1)
        for own, student in zip(asked, log_student, strict=True):
            for teacher_view in range(len(targets)):
                if teacher_view == view:
                    continue
                match = (own @ known[teacher_view].transpose(1, 2)).argmax(2)
                index = match[..., None].expand(-1, -1, targets.shape[-1])
                matched = targets[teacher_view].gather(1, index)
                total = total - (matched * student).sum(-1).mean()
                pairs += 1
            view += 1
    return total / pairs


def masked_distillation(
    targets: Tensor, logits: Tensor, mask: Tensor, temperature: float
) -> Tensor:
    """Mean over rows of the mean cross-entropy of masked patches (Zhou et al. 2022, eq. 2), scalar.

    `targets` and `logits` [M, K] of the M masked patches of all rows in order, `mask` bool [R, N]
    with M true.
    """
    log_student = torch.log_softmax(logits / temperature, dim=-1)
    return masked_mean(-(targets * log_student).sum(-1), mask)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over rows of the mean of `values` [M] at the M true places of `mask` [R, N], a scalar.

    A row without masked patches counts as 0, as in iBOT's code.
    """
    counts = mask.sum(1).clamp(min=1).to(values.dtype)
    weights = (1 / counts)[:, None].expand_as(mask)[mask]
    return (values * weights).sum() / len(mask)


def koleo(features: Tensor) -> Tensor:
    """Minus the mean log distance to the nearest other row, unit norm (Sablayrolles et al. 2019).

    Features [B, D] with B >= 2; a scalar, as in DINOv2.
    """
    unit = functional.normalize(features.float(), dim=-1, eps=1e-8)
    with torch.no_grad():
        similarity = (unit @ unit.T).fill_diagonal_(-2)
        nearest = similarity.argmax(1)
    distance = functional.pairwise_distance(unit, unit[nearest], eps=1e-8)
    return -(distance + 1e-8).log().mean()


def entropy(probabilities: Tensor) -> Tensor:
    """Mean Shannon entropy over rows of [..., K], nats, a scalar."""
    return torch.special.entr(probabilities).sum(-1).mean()
