"""k-NN accuracy of any frozen ViT on a labelled data set (eval_knn of Caron et al. 2021)."""

import torch

from trainers.adapters.embedding import Progress, embedded
from trainers.data.image_set import ImageSet
from trainers.errors import InputError
from trainers.evaluation.knn import accuracy, knn_right
from trainers.evaluation.rows import Rows
from trainers.globality.measurable import Measurable
from trainers.system.numbers import measuring
from trainers.system.world import World

NEIGHBOURS, TEMPERATURE = 20, 0.07
"""theirs"""


def check_labelled(images: ImageSet) -> None:
    """Raise InputError, one line, for images without labels, or of which none are held out."""
    if images.labels is None or not len(images.test) or not len(images.train):
        raise InputError(
            "k-NN takes labelled images, some of them held out: a folder with train/LABEL/ and "
            "val/LABEL/, or a data set that `dinolab ingest` made with labels"
        )


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

    With `model` moved to `device`; features of the bank that memory has no room for lie in a
    temporary file. Raises InputError for images without labels.
    """
    check_labelled(images)
    labels = images.labels
    assert labels is not None
    model.network.to(device).eval()
    total, done = len(images.train) + len(images.test), 0
    found: list[Rows] = []
    for part in (images.train, images.test):
        rows = None
        for places in part.split(batch_size):
            cls = embedded(model, images, places, size, device).cls
            rows = rows or Rows(cls.shape[1], device)
            rows.add(cls)
            done += len(places)
            progress(done, total)
        assert rows is not None
        found.append(rows)
    bank, queries = found[0], torch.cat(list(found[1]))
    right = knn_right(
        bank,
        labels[images.train].to(device),
        queries,
        labels[images.test].to(device),
        neighbours=NEIGHBOURS,
        temperature=TEMPERATURE,
        world=World(rank=0, size=1, device=device),
    )
    return accuracy(right)
