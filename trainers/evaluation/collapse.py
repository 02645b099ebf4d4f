"""The collapse panel: do outputs and features still tell images apart?"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

DESCRIPTIONS = {
    "collapse/target_entropy": "mean entropy of the teacher's output over ln K; 0 one-hot, "
    "1 uniform",
    "collapse/mean_entropy": "entropy of the mean teacher output over ln K; 1: all prototypes used",
    "collapse/information": "their difference: what an output tells of its image, over ln K; "
    "0 collapsed",
    "collapse/kl": "mean KL divergence from teacher to student output on one image; nats",
    "collapse/prototype_perplexity": "exp of the entropy of the mean output, over K; 1/K to 1",
    "collapse/rankme": "RankMe (Garrido et al. 2023) of the features, over their dimension",
    "collapse/feature_std": "deviation of unit-norm features over images, times √D; 1 isotropic",
    "collapse/uniformity": "ln mean exp(-2 |x - y|²) of unit-norm features (Wang & Isola 2020); "
    "0 all alike",
}

MOST_IMAGES = 4096
"""Images that the panel looks at, the first ones: pairs and singular values of more take too long,
and more say little more."""

_ROWS = 256
"""Images whose outputs are held in float64 at once: 65,536 prototypes of them take 128 MiB."""

LEAST_INFORMATION = 0.01
"""Share of ln K below which outputs count as the same for every image."""

LEAST_FEATURE_STD = 0.01
"""Spread of unit-norm features below which they count as the same for every image."""


def collapse_panel(
    teacher_logits: Tensor,
    student_logits: Tensor,
    features: Tensor,
    *,
    teacher_temperature: float,
    student_temperature: float,
    center: Tensor,
) -> dict[str, float]:
    """The panel of n >= 2 images: logits [n, K], features [n, D], center [K].

    The teacher's output is ``softmax((logits - center) / temperature)``, whatever makes the
    targets in training: Sinkhorn-Knopp would hide how prototypes are used. Of more than
    MOST_IMAGES images, the first ones count. Raises ValueError for fewer than two images.
    """
    sums = OutputSums(
        teacher_temperature=teacher_temperature,
        student_temperature=student_temperature,
        center=center,
    )
    panel = feature_panel(features)
    sums.see(teacher_logits[:MOST_IMAGES], student_logits[:MOST_IMAGES])
    return output_panel(torch.cat(sums.kept)) | panel


class OutputSums:
    """What the panel needs to know of outputs, which come part by part and are forgotten."""

    def __init__(
        self, *, teacher_temperature: float, student_temperature: float, center: Tensor
    ) -> None:
        self.teacher_temperature = teacher_temperature
        self.student_temperature = student_temperature
        self.center = center
        self.kept: list[Tensor] = []
        """of each part [groups, K + 3] float64: of groups of up to _ROWS images the sum of the
        teacher's outputs, of their entropies and of divergences, and the number of images"""

    def see(self, teacher_logits: Tensor, student_logits: Tensor) -> None:
        """Take logits [n, K] of some images."""
        groups = []
        for teacher_rows, student_rows in zip(
            teacher_logits.split(_ROWS), student_logits.split(_ROWS), strict=True
        ):
            log_teacher = torch.log_softmax(
                (teacher_rows.double() - self.center.double()) / self.teacher_temperature, dim=1
            )
            log_student = torch.log_softmax(student_rows.double() / self.student_temperature, dim=1)
            teacher = log_teacher.exp()
            entropy = torch.special.entr(teacher).sum()
            divergence = (teacher * (log_teacher - log_student)).sum()
            count = torch.full_like(entropy, len(teacher))
            groups.append(torch.cat([teacher.sum(0), torch.stack([entropy, divergence, count])]))
        self.kept.append(torch.stack(groups))


def output_panel(sums: Tensor) -> dict[str, float]:
    """The part of the panel that needs outputs, from `OutputSums.kept` of all images."""
    count = float(sums[:, -1].sum())
    log_k = math.log(sums.shape[1] - 3)
    each, divergence, mean_K = 0.0, 0.0, torch.zeros_like(sums[0, :-3])
    for group in sums:
        each += float(group[-3]) / count
        divergence += float(group[-2]) / count
        mean_K += group[:-3] / count
    mean = float(torch.special.entr(mean_K).sum())
    return {
        "collapse/target_entropy": each / log_k,
        "collapse/mean_entropy": mean / log_k,
        "collapse/information": (mean - each) / log_k,
        "collapse/kl": divergence,
        "collapse/prototype_perplexity": math.exp(mean) / len(mean_K),
    }


def feature_panel(features: Tensor) -> dict[str, float]:
    """The part of the panel that needs no head: features [n, D] of n >= 2 images.

    Of more than MOST_IMAGES images, the first ones count. Raises ValueError for fewer than two.
    """
    if len(features) < 2:
        raise ValueError(f"a collapse panel needs two images or more, got {len(features)}")
    features = features[:MOST_IMAGES].double()
    unit = functional.normalize(features, dim=1)
    return {
        "collapse/rankme": _rankme(features) / features.shape[1],
        "collapse/feature_std": float(unit.std(0, correction=0).mean()) * unit.shape[1] ** 0.5,
        "collapse/uniformity": float(torch.exp(-2 * torch.pdist(unit) ** 2).mean().log()),
    }


def _rankme(features: Tensor) -> float:
    values = torch.linalg.svdvals(features)
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny) + 1e-7
    return float(torch.exp(-(shares * shares.log()).sum()))


def collapsed(panel: Mapping[str, float]) -> str:
    """Why the panel of a trained network shows collapse, or an empty text."""
    if panel.get("collapse/information", 1.0) < LEAST_INFORMATION:
        form = "uniform" if panel["collapse/target_entropy"] > 0.5 else "on few prototypes"
        return (
            f"outputs are the same for every image, {form} "
            f"(information {panel['collapse/information']:.4f} < {LEAST_INFORMATION})"
        )
    if panel["collapse/feature_std"] < LEAST_FEATURE_STD:
        return (
            "features are the same for every image "
            f"(deviation {panel['collapse/feature_std']:.4f} < {LEAST_FEATURE_STD})"
        )
    return ""
