"""The linear probe finds the optimum that scikit-learn finds, and judges on other images."""

import numpy
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from trainers.evaluation import linear_probe
from trainers.system.world import World

torch.set_num_threads(1)

ALONE = World(rank=0, size=1, device=torch.device("cpu"))

Data = tuple[Tensor, Tensor, Tensor, Tensor]


def random_data(seed: int, known: int = 120, asked: int = 90, width: int = 6) -> Data:
    """Bank, its labels, queries and theirs: classes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, width, generator=generator)
    labels = torch.randint(4, (known + asked,), generator=generator)
    features = centres[labels] + 1.2 * torch.randn(known + asked, width, generator=generator)
    return features[:known], labels[:known], features[known:], labels[known:]


def linear_classifier(
    features: Tensor, labels: Tensor, classes: int, penalty: float, block: int = 1000
) -> Tensor:
    blocks = features.split(block)
    return linear_probe.linear_classifier(blocks, labels, classes, penalty, ALONE)


def linear_accuracy(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, *, penalty: float
) -> float:
    right = linear_probe.linear_right(
        bank.split(1000),
        bank_labels,
        queries.split(1000),
        query_labels,
        penalty=penalty,
        world=ALONE,
    )
    return linear_probe.accuracy_of_all(right, ALONE)


def reference(features: Tensor, labels: Tensor, penalty: float) -> Tensor:
    """The weights that scikit-learn finds, float64, the biases last."""
    found = LogisticRegression(
        C=1 / (penalty * len(features)), solver="newton-cholesky", tol=1e-6
    ).fit(features.double().numpy(), labels.numpy())
    return torch.from_numpy(numpy.column_stack([found.coef_, found.intercept_]))


def loss(weights: Tensor, features: Tensor, labels: Tensor, penalty: float) -> float:
    logits = functional.linear(features.double(), weights[:, :-1], weights[:, -1])
    square = weights[:, :-1].square().sum()
    return float(functional.cross_entropy(logits, labels) + penalty / 2 * square)


@pytest.mark.parametrize("mix", [0.0, 1.0], ids=["plain", "correlated"])
@pytest.mark.parametrize("penalty", [1e-3, 1e-1, 10.0])
@pytest.mark.parametrize(("seed", "block"), [(0, 1000), (1, 50), (2, 7)])
def test_the_classifier_is_that_of_scikit_learn(seed: int, block: int, penalty: float, mix: float):
    features, labels, queries, _ = random_data(seed)
    mixing = 0.1**mix * torch.eye(6) + mix * torch.ones(6, 6)
    features, queries = features @ mixing, queries @ mixing
    found = linear_classifier(features, labels, 4, penalty, block).double()
    expected = reference(features, labels, penalty)
    least = loss(expected, features, labels, penalty)
    assert least - 1e-9 < loss(found, features, labels, penalty) < least + 1e-6
    probabilities = [
        torch.softmax(functional.linear(queries.double(), one[:, :-1], one[:, -1]), 1)
        for one in (found, expected)
    ]
    torch.testing.assert_close(*probabilities, rtol=0, atol=5e-3)


@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_accuracy_is_that_of_scikit_learn_on_standardised_features(penalty: float):
    for seed in range(5):
        bank, bank_labels, queries, query_labels = random_data(seed)
        mean, deviation = bank.mean(0), bank.std(0, correction=0)
        weights = reference((bank - mean) / deviation, bank_labels, penalty)
        asked = ((queries - mean) / deviation).double()
        answers = functional.linear(asked, weights[:, :-1], weights[:, -1]).argmax(1)
        expected = float((answers == query_labels).double().mean())
        found = linear_accuracy(bank, bank_labels, queries, query_labels, penalty=penalty)
        assert found == pytest.approx(expected, abs=0.5 / len(queries))
        assert 0.3 < found < 1


def test_separate_classes_are_told_apart_without_error():
    labels = torch.arange(5).repeat(8)
    noise = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    features = 10 * torch.eye(5)[labels] + 0.1 * noise
    assert (
        linear_accuracy(features[:20], labels[:20], features[20:], labels[20:], penalty=1e-3) == 1
    )


def test_features_of_no_meaning_are_right_as_often_as_the_largest_class():
    labels = torch.tensor([0] * 30 + [1] * 10)
    features = torch.zeros(40, 3)
    assert linear_accuracy(features, labels, features, labels, penalty=1e-3) == pytest.approx(0.75)


def test_scale_and_offset_of_a_feature_do_not_matter():
    for seed in range(5):
        bank, bank_labels, queries, labels = random_data(seed)
        scale, offset = torch.tensor([1e-3, 1, 5, 10, 1e2, 1e3]), torch.arange(6.0)
        moved = (bank * scale + offset, bank_labels, queries * scale + offset, labels)
        plain = linear_accuracy(bank, bank_labels, queries, labels, penalty=0.01)
        assert linear_accuracy(*moved, penalty=0.01) == pytest.approx(plain, abs=0.02)


def test_queries_of_a_class_that_the_bank_lacks_are_never_right():
    bank, bank_labels, queries, _ = random_data(1)
    asked = torch.full((len(queries),), 9)
    assert linear_accuracy(bank, bank_labels, queries, asked, penalty=1e-3) == 0


def test_the_same_data_give_the_same_bits_whatever_the_gradient_mode():
    features, labels, _, _ = random_data(2)
    one = linear_classifier(features, labels, 4, 1e-3)
    with torch.no_grad():
        other = linear_classifier(features, labels, 4, 1e-3)
    assert torch.equal(one, other)
    assert not one.requires_grad
