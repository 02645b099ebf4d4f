"""Weighted k-nearest-neighbour accuracy (Wu et al. 2018; eval_knn of Caron et al. 2021)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from trainers.evaluation.rows import with_labels
from trainers.system.world import World

DESCRIPTIONS = {
    "knn/cls_top1": "k-NN accuracy of held-out images on [CLS]; share, 0 to 1 (Caron et al. 2021)",
    "knn/patch_top1": "k-NN accuracy of held-out images on the mean patch token; share, 0 to 1",
    "knn/random_patch_top1": "the same on one patch token of each image, drawn by chance",
    "knn/register_top1": "the same on the first register",
    "knn/fixed_patch_top1": "the same on the patch at loss.fixed_patch_place",
    "gap/patch": "k-NN accuracy of [CLS] minus that of the mean patch token; -1 to 1",
    "gap/random_patch": "k-NN accuracy of [CLS] minus that of a single random patch",
}


Accuracy = TypeVar("Accuracy", float, Tensor)
"""of all images, or of each"""


def gaps(accuracies: Mapping[str, Accuracy]) -> dict[str, Accuracy]:
    """What [CLS] knows of an image that patch tokens do not, from accuracies by name."""
    if "knn/cls_top1" not in accuracies:
        return {}
    return {
        f"gap/{name}": accuracies["knn/cls_top1"] - accuracies[f"knn/{name}_top1"]
        for name in ("patch", "random_patch")
    }


_PAIRS = 2**24
"""Queries times neighbours that are held at once, 192 MiB."""

Neighbours = tuple[Tensor, Tensor]
"""cosines of queries to their nearest neighbours [m, k], falling, and the labels of those"""


def accuracy(right: Tensor) -> float:
    """The share of images that are right, bool [m], in [0, 1]."""
    return int(right.sum()) / len(right)


def knn_right(
    bank: Iterable[Tensor],
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    *,
    neighbours: int,
    temperature: float,
    world: World,
    chunk: int = 1024,
) -> Tensor:
    """Whether the label of each query wins the vote of its nearest neighbours, bool [m].

    Features [m, D] of all queries, and those of the bank in blocks of rows, [n, D] together;
    labels int64 [m] and [n]. Each of the `neighbours` images of the bank nearest by cosine (all of
    them, if there are fewer) votes with ``exp(cosine / temperature)``. The bank is that of all
    workers of `world`: each gives its own part and all queries. Never held is more of the
    similarities than `chunk` queries to a block.
    """
    queries = functional.normalize(queries.float(), dim=1)
    largest = max(int(labels.max()) for labels in (bank_labels, query_labels) if len(labels))
    classes = max(world.of_each(largest)) + 1
    right = []
    at_once = max(1, _PAIRS // neighbours)
    for features, answers in zip(queries.split(at_once), query_labels.split(at_once), strict=True):
        parts = features.split(chunk)
        nearest = _nearest(parts, bank, bank_labels, neighbours)
        for (similarity, labels), truth in zip(nearest, answers.split(chunk), strict=True):
            similarity, labels = _of_all((similarity, labels), neighbours, world)
            votes = torch.zeros(len(truth), classes, device=queries.device)
            # Relative to the nearest, so that a low temperature does not overflow.
            weights = torch.exp((similarity - similarity[:, :1]) / temperature)
            votes.scatter_add_(1, labels, weights)
            right.append(votes.argmax(1) == truth)
    return torch.cat(right)


def _nearest(
    parts: Sequence[Tensor], bank: Iterable[Tensor], bank_labels: Tensor, neighbours: int
) -> list[Neighbours]:
    """Those of each part of the queries in this worker's part of the bank, which is read once."""
    nearest = [(part[:, :0], part[:, :0].long()) for part in parts]
    for block, labels in with_labels(bank, bank_labels):
        block = functional.normalize(block.float(), dim=1)
        for place, part in enumerate(parts):
            similarity, rows = (part @ block.T).topk(min(neighbours, len(block)), dim=1)
            nearest[place] = _best(nearest[place], (similarity, labels[rows]), neighbours)
    return nearest


def _best(one: Neighbours, other: Neighbours, neighbours: int) -> Neighbours:
    """The nearest of two lists."""
    if not one[0].shape[1]:
        return other
    similarity, labels = (torch.cat(pair, dim=1) for pair in zip(one, other, strict=True))
    similarity, places = similarity.topk(min(neighbours, similarity.shape[1]), dim=1)
    return similarity, labels.gather(1, places)


def _of_all(mine: Neighbours, neighbours: int, world: World) -> Neighbours:
    """The nearest of the lists of all workers, on each of them."""
    if world.size == 1:
        return mine
    # A worker may have fewer rows than there are neighbours: what has no likeness has no vote.
    missing = (0, neighbours - mine[0].shape[1])
    similarity = world.gather(functional.pad(mine[0], missing, value=-torch.inf))
    labels = world.gather(functional.pad(mine[1], missing))
    nearest = mine[0][:, :0], mine[1][:, :0]
    for other in zip(similarity.chunk(world.size), labels.chunk(world.size), strict=True):
        nearest = _best(nearest, other, neighbours)
    return nearest
