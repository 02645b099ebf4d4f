"""Weighted k-nearest-neighbour accuracy against a loop over neighbours."""

import math

import pytest
import torch
from torch import Tensor

from trainers.evaluation import knn
from trainers.evaluation.knn import DESCRIPTIONS, gaps, knn_right
from trainers.system.world import World

torch.set_num_threads(1)

ALONE = World(rank=0, size=1, device=torch.device("cpu"))

Data = tuple[Tensor, Tensor, Tensor, Tensor]


def random_data(
    seed: int, known: int = 40, asked: int = 30, width: int = 6, classes: int = 4
) -> Data:
    """Bank, its labels, queries and theirs: classes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=generator)
    labels = torch.randint(classes, (known + asked,), generator=generator)
    features = centres[labels] + 1.2 * torch.randn(known + asked, width, generator=generator)
    return features[:known], labels[:known], features[known:], labels[known:]


def brute_force(data: Data, neighbours: int, temperature: float) -> float:
    bank, bank_labels, queries, query_labels = data
    right = 0
    for query, label in zip(queries.double(), query_labels.tolist(), strict=True):
        cosines = []
        for known, known_label in zip(bank.double(), bank_labels.tolist(), strict=True):
            cosine = float(query @ known / (query.norm() * known.norm()))
            cosines.append((cosine, known_label))
        votes: dict[int, float] = {}
        for cosine, known_label in sorted(cosines, reverse=True)[:neighbours]:
            weight = math.exp(cosine / temperature)
            votes[known_label] = votes.get(known_label, 0.0) + weight
        right += max(votes, key=lambda name: votes[name]) == label
    return right / len(queries)


def accuracy(
    data: Data, neighbours: int = 5, temperature: float = 0.07, chunk: int = 7, block: int = 1000
) -> float:
    bank, *others = data
    right = knn_right(
        bank.split(block),
        *others,
        neighbours=neighbours,
        temperature=temperature,
        chunk=chunk,
        world=ALONE,
    )
    return knn.accuracy(right)


@pytest.mark.parametrize("neighbours", [1, 2, 5, 20, 40])
@pytest.mark.parametrize("temperature", [0.02, 0.07, 1.0])
def test_accuracy_is_that_of_a_loop_over_neighbours(neighbours: int, temperature: float):
    for seed in range(5):
        data = random_data(seed)
        assert accuracy(data, neighbours, temperature) == brute_force(data, neighbours, temperature)


def test_the_data_of_these_tests_are_neither_trivial_nor_hopeless():
    found = [accuracy(random_data(seed), neighbours) for seed in range(5) for neighbours in (1, 20)]
    assert 0.3 < min(found) < max(found) < 1


def test_more_neighbours_than_the_bank_has_are_all_of_it():
    data = random_data(0)
    assert accuracy(data, 1000) == accuracy(data, 40) == brute_force(data, 1000, 0.07)


def test_separate_classes_are_told_apart_without_error():
    classes, each = 5, 8
    labels = torch.arange(classes).repeat(each)
    generator = torch.Generator().manual_seed(0)
    features = 10 * torch.eye(classes)[labels]
    features += 0.1 * torch.randn(features.shape, generator=generator)
    data = (features[:20], labels[:20], features[20:], labels[20:])
    for neighbours in (1, 4, 20):
        assert accuracy(data, neighbours) == 1


def test_queries_of_a_class_that_the_bank_lacks_are_never_right():
    bank, bank_labels, queries, _ = random_data(1)
    for label in (9, 4):
        asked = torch.full((len(queries),), label)
        assert accuracy((bank, bank_labels, queries, asked)) == 0


@pytest.mark.parametrize("neighbours", [1, 5, 20, 100])
@pytest.mark.parametrize("block", [1, 3, 7, 39])
def test_a_bank_in_blocks_has_the_neighbours_of_the_whole(block: int, neighbours: int):
    for seed in range(3):
        data = random_data(seed)
        assert accuracy(data, neighbours, block=block) == accuracy(data, neighbours)


def test_the_whole_bank_may_vote_for_more_queries_than_are_held_at_once(monkeypatch):
    data = random_data(0)
    expected = accuracy(data, 20, block=7)
    monkeypatch.setattr(knn, "_PAIRS", 60)
    assert accuracy(data, 20, block=7, chunk=2) == expected


@pytest.mark.parametrize("chunk", [1, 29, 30, 31, 1024])
def test_the_chunk_size_does_not_matter(chunk: int):
    for seed in range(5):
        data = random_data(seed)
        assert accuracy(data, chunk=chunk) == accuracy(data, chunk=7)


def test_the_length_of_a_feature_does_not_matter():
    for seed in range(5):
        bank, bank_labels, queries, labels = random_data(seed)
        lengths = 10 ** torch.linspace(-4, 4, len(bank))[:, None]
        scaled = (bank * lengths, bank_labels, 1e3 * queries, labels)
        assert accuracy(scaled) == accuracy((bank, bank_labels, queries, labels))


def test_one_very_near_neighbour_outvotes_two_far_ones_at_a_low_temperature_only():
    angles = torch.tensor([0.0, 0.8, 0.9])
    bank = torch.stack([angles.cos(), angles.sin()], 1)
    data = (bank, torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert accuracy(data, 3, 0.07) == 1
    assert accuracy(data, 3, 10.0) == 0


@pytest.mark.parametrize("temperature", [1e-2, 1e-3, 1e-6])
def test_a_temperature_near_0_is_the_single_nearest_neighbour(temperature: float):
    # exp(cosine / temperature) itself is beyond float32.
    for seed in range(5):
        data = random_data(seed)
        if temperature < 1e-2:
            assert accuracy(data, 20, temperature) == accuracy(data, 1)
        else:
            assert accuracy(data, 20, temperature) == brute_force(data, 20, temperature)


# Gaps


def test_gaps_are_what_cls_knows_more_than_patches():
    found = gaps(
        {
            "knn/cls_top1": 0.75,
            "knn/patch_top1": 0.5,
            "knn/random_patch_top1": 0.875,
            "knn/register_top1": 0.1,
        }
    )
    assert found == {"gap/patch": 0.25, "gap/random_patch": -0.125}
    assert found.keys() == {name for name in DESCRIPTIONS if name.startswith("gap/")}


def test_a_cls_that_is_a_random_patch_has_no_gap_to_it():
    bank, bank_labels, queries, labels = random_data(3)
    same = accuracy((bank, bank_labels, queries, labels))
    worse = accuracy((bank, bank_labels, queries.flip(0), labels))
    found = gaps({"knn/cls_top1": same, "knn/random_patch_top1": same, "knn/patch_top1": worse})
    assert found["gap/random_patch"] == 0
    assert found["gap/patch"] == same - worse > 0


def test_without_cls_there_is_no_gap():
    assert gaps({"knn/patch_top1": 0.5, "knn/random_patch_top1": 0.4}) == {}
