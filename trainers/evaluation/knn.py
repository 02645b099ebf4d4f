"""Weighted k-nearest-neighbour accuracy (Wu et al. 2018; eval_knn of Caron et al. 2021)."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

DESCRIPTIONS = {
    "knn/cls_top1": "k-NN accuracy of held-out images on [CLS]; share, 0 to 1 (Caron et al. 2021)",
    "knn/patch_top1": "k-NN accuracy of held-out images on the mean patch token; share, 0 to 1",
    "knn/random_patch_top1": "the same on one patch token of each image, drawn by chance",
    "knn/register_top1": "the same on the first register",
    "knn/fixed_patch_top1": "the same on the patch at loss.fixed_patch_place",
    "gap/patch": "k-NN accuracy of [CLS] minus that of the mean patch token; -1 to 1",
    "gap/random_patch": "k-NN accuracy of [CLS] minus that of a single random patch",
}


def gaps(accuracies: Mapping[str, float]) -> dict[str, float]:
    """What [CLS] knows of an image that patch tokens do not, from accuracies by name."""
    if "knn/cls_top1" not in accuracies:
        return {}
    return {
        f"gap/{name}": accuracies["knn/cls_top1"] - accuracies[f"knn/{name}_top1"]
        for name in ("patch", "random_patch")
    }


def knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    *,
    neighbours: int,
    temperature: float,
    chunk: int = 1024,
) -> float:
    """Share of queries whose label wins the vote of their nearest neighbours, in [0, 1].

    Features [n, D] and [m, D], labels int64 [n] and [m]. Each of the `neighbours` images of the
    bank nearest by cosine (all of them, if there are fewer) votes with ``exp(cosine /
    temperature)``.
    """
    bank = functional.normalize(bank.float(), dim=1)
    queries = functional.normalize(queries.float(), dim=1)
    nearest = min(neighbours, len(bank))
    classes = int(max(bank_labels.max(), query_labels.max())) + 1
    right = 0
    for features, labels in zip(queries.split(chunk), query_labels.split(chunk), strict=True):
        similarity, places = (features @ bank.T).topk(nearest, dim=1)
        votes = torch.zeros(len(features), classes, device=bank.device)
        # Relative to the nearest, so that a low temperature does not overflow.
        weights = torch.exp((similarity - similarity[:, :1]) / temperature)
        votes.scatter_add_(1, bank_labels[places], weights)
        right += int((votes.argmax(1) == labels).sum())
    return right / len(queries)
