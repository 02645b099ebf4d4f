"""The loss of a site minus the entropy of its targets is a divergence: never below 0."""

import pytest
import torch

from tests.trainers.method.test_sites import ALONE, BASE, batch
from trainers.config import override
from trainers.method.site import Seen, Targets, all_sites
from trainers.model.vit import Features
from trainers.training.state import TrainState
from trainers.training.step import update

IMAGES, WIDTH, PROTOTYPES, TEMPERATURE = 3, 5, 4, 0.5
LOSS = override(BASE, {"loss.student_temperature": TEMPERATURE}).loss
SITES = tuple(all_sites())


def seen(views, grid, generator, *, hides=False):
    patches = grid[0] * grid[1]
    shape = (views * IMAGES, 2 + patches, WIDTH)
    tokens = torch.randn(shape, generator=generator, dtype=torch.float64)
    hidden = torch.rand(views * IMAGES, patches, generator=generator) < 0.4 if hides else None
    features = Features(tokens=tokens, grid=grid, has_cls=True, registers_count=1)
    return Seen(features=features, images=IMAGES, hidden=hidden)


def head_of(generator):
    weight = torch.randn(WIDTH, PROTOTYPES, generator=generator, dtype=torch.float64)
    return lambda rows: rows @ weight


def targets_of(site, teacher, head, temperature):
    rows = torch.softmax(head(site.rows(teacher)) / temperature, -1)
    return Targets(rows=rows, kept=site.keep(teacher))


def divergence(site, targets, student, head):
    return (site.loss(targets, student, head) - site.target_entropy(targets, student)).item()


@pytest.mark.parametrize("name", SITES)
@pytest.mark.parametrize("temperature", [0.05, 2.0])
def test_a_divergence_is_never_negative(name, temperature):
    site = all_sites()[name](LOSS, 1.0)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        teacher = seen(2, (2, 3), generator, hides=True)
        # Targets differ in how sure they are, and some patches are nobody's match.
        tokens = teacher.features.tokens
        tokens.mul_(4 * torch.rand(*tokens.shape[:2], 1, generator=generator))
        student = [seen(2, (2, 3), generator), seen(3, (1, 2), generator)]
        student[0] = Seen(features=student[0].features, images=IMAGES, hidden=teacher.hidden)
        head = head_of(generator)
        targets = targets_of(site, teacher, head, temperature)
        assert divergence(site, targets, student, head) >= 0


@pytest.mark.parametrize("name", SITES)
def test_a_student_that_gives_the_targets_has_no_divergence(name):
    site = all_sites()[name](LOSS, 1.0)
    generator = torch.Generator().manual_seed(0)
    one = seen(1, (2, 3), generator, hides=True)
    both = twice(one, one.features.tokens)
    head = head_of(generator)
    targets = targets_of(site, both, head, TEMPERATURE)
    assert divergence(site, targets, [both], head) == pytest.approx(0, abs=1e-12)
    assert site.loss(targets, [both], head) > 0.1


def twice(one, tokens):
    """Two views alike, with other tokens."""
    features = Features(tokens=tokens.repeat(2, 1, 1), grid=(2, 3), has_cls=True, registers_count=1)
    return Seen(features=features, images=IMAGES, hidden=one.hidden.repeat(2, 1))


def test_targets_of_patches_that_are_nobodys_match_do_not_count():
    site = all_sites()["dense"](LOSS, 1.0)
    generator = torch.Generator().manual_seed(0)
    one = seen(1, (2, 3), generator, hides=True)
    head = head_of(generator)
    targets = targets_of(site, twice(one, one.features.tokens), head, TEMPERATURE)
    # Every patch of the student is one of the teacher's first three.
    copies = one.features.tokens[:, [0, 1, 2, 2, 2, 3, 4, 2]]
    student = [twice(one, copies)]
    assert divergence(site, targets, student, head) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", ["none", "centering", "sinkhorn"])
def test_every_divergence_of_a_run_is_a_divergence(kind):
    weights = {f"loss.{name}": 1.0 for name in SITES}
    config = override(BASE, weights | {"targets.kind": kind, "compute.accumulate": 3})
    state = TrainState.fresh(config, ALONE)
    for seed in range(3):
        parts = update(state, batch(seed), config, ALONE).parts
        found = {name: float(parts[f"loss/{name}_kl"]) for name in SITES}
        assert min(found.values()) >= -1e-6, found


def test_a_step_that_does_not_log_makes_no_entropies_and_moves_alike():
    config = override(BASE, {f"loss.{name}": 1.0 for name in SITES})
    found = []
    for logs in (True, False):
        state = TrainState.fresh(config, ALONE)
        found.append((update(state, batch(), config, ALONE, logs=logs), state.student))
    (whole, one), (bare, other) = found
    assert set(bare.parts) == {f"loss/{name}" for name in SITES}
    assert all(torch.equal(value, whole.parts[name]) for name, value in bare.parts.items())
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
