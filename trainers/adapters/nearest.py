"""k-NN accuracy of any frozen ViT on a labelled data set (eval_knn of Caron et al. 2021)."""

import torch
from torch import Tensor

from trainers.adapters.embedding import Progress, embedded
from trainers.data.image_set import ImageSet
from trainers.errors import InputError
from trainers.evaluation.knn import accuracy, knn_right
from trainers.globality.measurable import Measurable
from trainers.system.numbers import measuring
from trainers.system.world import World

NEIGHBOURS, TEMPERATURE = 20, 0.07
"""theirs"""


@measuring()
def knn_accuracy(
    model: Measurable,
    images: ImageSet,
    size: int,
    device: torch.device,
    *,
    batch_size: int,
    progress: Progress = lambda done, total: None,
) -> float:
    """Share of held-out images whose label their nearest training images vote for, on [CLS].

    With `model` moved to `device`. Raises InputError for images without labels.
    """
    labels = images.labels
    if labels is None or not len(images.test) or not len(images.train):
        raise InputError(
            "k-NN takes labelled images, some of them held out: a folder with train/LABEL/ and "
            "val/LABEL/, or a data set that `dinolab ingest` made with labels"
        )
    model.network.to(device).eval()
    total, done = len(images.train) + len(images.test), 0
    found: list[Tensor] = []
    for part in (images.train, images.test):
        rows = []
        for places in part.split(batch_size):
            rows.append(embedded(model, images, places, size, device).cls.float())
            done += len(places)
            progress(done, total)
        found.append(torch.cat(rows))
    bank, queries = found
    right = knn_right(
        [bank],
        labels[images.train].to(device),
        queries,
        labels[images.test].to(device),
        neighbours=NEIGHBOURS,
        temperature=TEMPERATURE,
        world=World(rank=0, size=1, device=device),
    )
    return accuracy(right)
