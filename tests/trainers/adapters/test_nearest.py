"""k-NN of a frozen ViT: what is kept of each image is its [CLS] alone."""

import pytest
import torch

from trainers.adapters import nearest
from trainers.adapters.opening import open_measurable
from trainers.config import DataConfig
from trainers.data.image_set import open_images
from trainers.errors import InputError
from trainers.evaluation.rows import Rows

CPU = torch.device("cpu")


def test_of_each_image_nothing_but_one_row_stays(monkeypatch):
    pytest.importorskip("timm")
    model = open_measurable("vit_tiny_patch16_224", seed=1)
    images = open_images(DataConfig(source="digits", image_size=32), None)
    images.train, images.test = images.train[:50], images.test[:20]
    seen, told = [], []

    def right(bank, labels, queries, truth, **_):
        assert isinstance(bank, Rows)
        (block,) = bank
        for rows in (block, queries):
            assert rows.untyped_storage().nbytes() == rows.nbytes
        seen.append((len(block), len(labels), len(queries), len(truth)))
        return torch.ones(len(truth), dtype=torch.bool)

    monkeypatch.setattr(nearest, "knn_right", right)
    found = nearest.knn_accuracy(
        model,
        images,
        32,
        CPU,
        batch_size=8,
        progress=lambda done, total: told.append((done, total)),
    )
    assert found == 1
    assert seen == [(50, 50, 20, 20)]
    assert told[-1] == (70, 70)


def test_images_without_labels_are_refused():
    images = open_images(DataConfig(source="digits", image_size=32), None)
    images.labels = None
    with pytest.raises(InputError, match="k-NN takes labelled images"):
        nearest.check_labelled(images)
