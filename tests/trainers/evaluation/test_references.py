"""Accuracies of the data alone, against k-NN written out."""

import numpy as np
import pytest
import torch

from trainers.config import override
from trainers.config.recipe import recipe
from trainers.data.augment import IMAGENET, evaluation_crops
from trainers.data.image_set import open_images
from trainers.evaluation.references import FEATURES, reference_accuracies
from trainers.runs.version import code_versions

CONFIG = recipe("photographs_tiny")
IMAGES = open_images(CONFIG.data, None)


def crops_of(places):
    pixels = IMAGES.pixels(places)
    return evaluation_crops(pixels, IMAGES.aspect(places), CONFIG.augment.global_size).numpy()


def written_out(features, neighbours=20, temperature=0.07):
    """Share of held-out images whose label has most of the votes of the nearest by cosine."""
    labels = IMAGES.labels.numpy()
    bank, queries = (
        np.array([features(crop) for crop in crops_of(places)])
        for places in (IMAGES.train, IMAGES.test)
    )
    bank, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries))
    right = 0
    for query, truth in zip(queries, labels[IMAGES.test.numpy()], strict=True):
        cosines = bank @ query
        nearest = np.argsort(-cosines)[:neighbours]
        votes = np.zeros(labels.max() + 1)
        np.add.at(
            votes, labels[IMAGES.train.numpy()][nearest], np.exp(cosines[nearest] / temperature)
        )
        right += votes.argmax() == truth
    return right / len(queries)


def pixels(crop):
    mean, deviation = (np.array(one)[:, None, None] for one in IMAGENET)
    return ((crop / 255 - mean) / deviation).ravel()


def mean_colour(crop):
    return np.append(crop.reshape(3, -1).mean(1) / 255, 1.0)


def histogram(crop):
    counts, _ = np.histogramdd(crop.reshape(3, -1).T, bins=[np.arange(0, 257, 32)] * 3)
    return np.sqrt(counts.ravel() / counts.sum())


@pytest.mark.parametrize("features", [pixels, mean_colour, histogram])
def test_each_is_the_k_nn_accuracy_of_its_features(features):
    name = features.__name__
    found = reference_accuracies(IMAGES, CONFIG, [name])
    # Cosines in single precision order a few neighbours otherwise.
    assert found == {name: pytest.approx(written_out(features), abs=3 / len(IMAGES.test))}


def test_they_follow_the_knobs_of_the_runs_own_k_nn():
    one = override(CONFIG, {"evaluation.knn_neighbours": 1})
    assert reference_accuracies(IMAGES, one, ["pixels"]) != reference_accuracies(
        IMAGES, CONFIG, ["pixels"]
    )


def test_large_crops_are_averaged_down():
    crops = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    small = crops.double().reshape(2, 3, 32, 2, 32, 2).mean((3, 5)).numpy()
    expected = np.array([pixels(crop) for crop in small])
    assert FEATURES["pixels"](crops).numpy() == pytest.approx(expected, abs=1e-5)


def test_no_trial_executes_them():
    assert "trainers.evaluation.references" not in code_versions()
