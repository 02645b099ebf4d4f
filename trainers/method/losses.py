"""The losses: pure functions of targets, logits and features."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

AT_ONCE = 2**22
"""Logits up to which a loss makes all that it needs of them at once."""


def distillation(targets: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy over pairs of different views (Caron et al. 2021, eq. 3), a scalar.

    `targets` [G, B, K] of G teacher views, rows sum to 1; `logits` [V, B, K] of V student views,
    the first G of which are the teacher's. Pairs of a view with itself do not count.
    """
    # All pairs at once: one sum of the targets of the other views meets each student view.
    total = targets.sum(0)
    teachers, views, images = len(targets), len(logits), targets.shape[1]
    pairs = images * (teachers * views - teachers)
    if logits.numel() > AT_ONCE:
        loss: Tensor = _InParts.apply(logits, targets, total, temperature)
        return loss / pairs
    log_student = torch.log_softmax(logits / temperature, dim=-1)
    others = torch.cat([total - targets, total.expand(views - teachers, -1, -1)])
    return -(others * log_student).sum() / pairs


class _InParts(torch.autograd.Function):
    """The summed cross-entropy of all pairs, of which at most AT_ONCE values are at hand at once.

    Nothing of the size of the logits is made but their gradient.
    """

    @staticmethod
    def forward(
        context: Any, logits: Tensor, targets: Tensor, total: Tensor, temperature: float
    ) -> Tensor:
        context.save_for_backward(logits, targets, total)
        context.temperature = temperature
        loss = logits.new_zeros(())
        for place, others in _parts(logits, targets, total):
            log_student = torch.log_softmax(logits[place] / temperature, dim=-1)
            loss -= log_student.mul_(others).sum()
        return loss

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        logits, targets, total = context.saved_tensors
        scale = gradients[0] / context.temperature
        found = torch.empty_like(logits)
        for place, others in _parts(logits, targets, total):
            student = torch.softmax(logits[place] / context.temperature, dim=-1)
            student.mul_(others.sum(-1, keepdim=True)).sub_(others)
            torch.mul(student, scale, out=found[place])
        return found, None, None, None


def _parts(
    logits: Tensor, targets: Tensor, total: Tensor
) -> Iterator[tuple[tuple[int, slice], Tensor]]:
    """Views and rows of `logits`, and the sum of the targets of the other views of these images."""
    rows = max(1, AT_ONCE // logits.shape[-1])
    for view in range(len(logits)):
        for start in range(0, logits.shape[1], rows):
            some = slice(start, start + rows)
            own = total[some] - targets[view, some] if view < len(targets) else total[some]
            yield (view, some), own


def dense_distillation(
    targets: Tensor,
    target_features: Tensor,
    groups: Sequence[tuple[Tensor, Tensor]],
    temperature: float,
) -> Tensor:
    """Mean cross-entropy of every patch with its match (Li et al. 2022, EsViT, eq. 3), a scalar.

    `targets` [G, B, N, K] and `target_features` [G, B, N, D] of the teacher's patches; `groups` of
    student views of one size, logits [V, B, M, K] and features [V, B, M, D], the teacher's views
    first. Each student patch is compared with its match in every other view of the teacher. The
    mean is over pairs of different views.
    """
    log_student = [
        view for logits, _ in groups for view in torch.log_softmax(logits / temperature, dim=-1)
    ]
    total = targets.new_zeros(())
    pairs = 0
    for view, teacher_view, match in matches(target_features, [each for _, each in groups]):
        index = match[..., None].expand(-1, -1, targets.shape[-1])
        matched = targets[teacher_view].gather(1, index)
        total = total - (matched * log_student[view]).sum(-1).mean()
        pairs += 1
    return total / pairs


def dense_entropy(targets: Tensor, target_features: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """Mean entropy of the targets that `dense_distillation` compares patches with, nats, a scalar.

    `groups` are the student's features alone; a target counts as often as it is a match.
    """
    each = torch.special.entr(targets).sum(-1)
    found = [
        each[teacher_view].gather(1, match).mean()
        for _, teacher_view, match in matches(target_features, groups)
    ]
    return torch.stack(found).mean()


def matches(target_features: Tensor, groups: Sequence[Tensor]) -> Iterator[tuple[int, int, Tensor]]:
    """Student view, teacher view and matches, int64 [B, M], of every pair of different views.

    The match of a student patch is the teacher patch whose features are nearest to its own by
    cosine. `target_features` [G, B, N, D]; `groups` of student views, features [V, B, M, D].
    """
    known = functional.normalize(target_features.detach().float(), dim=-1)
    view = 0
    for features in groups:
        for own in functional.normalize(features.detach().float(), dim=-1):
            for teacher_view, others in enumerate(known):
                if teacher_view != view:
                    yield view, teacher_view, (own @ others.transpose(1, 2)).argmax(2)
            view += 1


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
    counts = mask.sum(1)
    each = 1 / counts.clamp(min=1).to(values.dtype)
    weights = each.repeat_interleave(counts, output_size=len(values))
    return (values * weights).sum() / len(mask)


def koleo(features: Tensor) -> Tensor:
    """Minus the mean log distance to the nearest other row, unit norm (Sablayrolles et al. 2019).

    Features [B, D] with B >= 2, of one view: DINOv2 sums it over the global views, since views of
    one image need not spread (facebookresearch/dinov2, ssl_meta_arch.py). There B are the images of
    one GPU; here those of all workers, so that their number changes nothing. A scalar.
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
