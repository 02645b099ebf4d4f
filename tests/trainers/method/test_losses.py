"""Losses against the equations, one row at a time."""

import itertools
import math

import pytest
import torch

from trainers.method.losses import dense_distillation, koleo, masked_distillation, masked_mean


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cross_entropy(target, logits, temperature):
    exponents = [math.exp(float(one) / temperature) for one in logits]
    shares = [one / sum(exponents) for one in exponents]
    return -sum(float(t) * math.log(p) for t, p in zip(target, shares, strict=True))


@pytest.mark.parametrize(("teachers", "views"), [(1, (1, 2)), (2, (2, 0)), (2, (2, 3))])
@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_dense_distillation_meets_the_most_similar_patch_of_every_other_view(
    teachers, views, temperature
):
    images, patches, few, prototypes, features = 2, 4, 3, 5, 6
    targets = torch.softmax(rows(teachers, images, patches, prototypes), -1)
    known = rows(teachers, images, patches, features, seed=1)
    sizes = [(views[0], patches), (views[1], few)]
    groups = [
        (
            rows(count, images, size, prototypes, seed=2 + number),
            rows(count, images, size, features, seed=4 + number),
        )
        for number, (count, size) in enumerate(sizes)
        if count
    ]
    flat = [
        (logits, own)
        for group_logits, group_features in groups
        for logits, own in zip(group_logits, group_features, strict=True)
    ]
    losses = []
    for teacher, (view, (logits, own)) in itertools.product(range(teachers), enumerate(flat)):
        if teacher == view:
            continue
        each = []
        for image, patch in itertools.product(range(images), range(logits.shape[1])):
            mine = own[image, patch]
            cosines = [
                float(mine @ other / (mine.norm() * other.norm()))
                for other in known[teacher, image]
            ]
            match = max(range(patches), key=lambda j: cosines[j])
            target = targets[teacher, image, match]
            each.append(cross_entropy(target, logits[image, patch], temperature))
        losses.append(sum(each) / len(each))
    found = dense_distillation(targets, known, groups, temperature).item()
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-7)


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_masked_distillation_is_the_mean_over_rows_of_the_mean_over_masked_patches(temperature):
    mask = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    targets = torch.softmax(rows(4, 5), -1)
    logits = rows(4, 5, seed=1)
    each = [cross_entropy(t, one, temperature) for t, one in zip(targets, logits, strict=True)]
    expected = (sum(each[:3]) / 3 + 0 + each[3]) / 3
    found = masked_distillation(targets, logits, mask, temperature).item()
    assert found == pytest.approx(expected, rel=1e-9)
    assert masked_mean(torch.ones(4), mask).item() == pytest.approx(2 / 3)


def test_nothing_masked_costs_nothing_and_has_a_gradient():
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = masked_distillation(torch.zeros(0, 5), logits, torch.zeros(3, 4, dtype=torch.bool), 0.1)
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize(("images", "features"), [(2, 3), (8, 4), (16, 48)])
def test_koleo_is_minus_the_mean_log_distance_to_the_nearest_neighbour(images, features):
    given = rows(images, features)
    unit = [row / row.norm() for row in given]
    nearest = [
        min(float((mine - other).norm()) for j, other in enumerate(unit) if j != i)
        for i, mine in enumerate(unit)
    ]
    expected = -sum(math.log(distance) for distance in nearest) / images
    assert koleo(given).item() == pytest.approx(expected, rel=1e-5)


def test_koleo_does_not_depend_on_scale_and_falls_as_images_spread():
    given = rows(8, 4)
    assert koleo(given * 7).item() == pytest.approx(koleo(given).item(), rel=1e-5)
    assert koleo(torch.eye(4)).item() < koleo(torch.ones(4, 4) + 0.1 * torch.eye(4)).item()
    same = torch.ones(4, 3, requires_grad=True)
    koleo(same).backward()
    assert torch.isfinite(same.grad).all()
