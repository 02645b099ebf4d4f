"""Linear classification of frozen features (Caron et al. 2021, section 4.1), to the optimum.

L-BFGS on the whole training part in place of DINO's 100 epochs of SGD: nothing to tune but the
penalty, nothing random, and the same bits each time. scikit-learn's LogisticRegression finds the
same optimum (the tests compare), but on the CPU alone: some minutes for 100,000 images of 1,000
classes, at every evaluation.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional

from trainers.evaluation.rows import Standardised, with_labels
from trainers.system.world import World

DESCRIPTIONS = {
    "linear_probe/cls_top1": "accuracy of a linear classifier of held-out images on [CLS] of the "
    "last blocks; share, 0 to 1 (Caron et al. 2021)",
    "linear_probe/patch_top1": "the same on the mean patch token of the last blocks",
}

ITERATIONS = 100
"""Steps of L-BFGS at most."""

GRADIENT = 1e-5
"""Largest gradient, where curvature is about 1, at which the optimum counts as found; nats."""


def linear_right(
    bank: Iterable[Tensor],
    bank_labels: Tensor,
    queries: Iterable[Tensor],
    query_labels: Tensor,
    *,
    penalty: float,
    world: World,
) -> Tensor:
    """Whether a classifier trained on the bank finds the label of each query, bool [m].

    Features [n, D] and [m, D] in blocks of rows, which are read many times; labels int64 [n] and
    [m]. Each worker of `world` gives its own part of both. Features are standardised by the moments
    of the bank.
    """
    mean, deviation = _moments(bank, world)
    labels = torch.cat([bank_labels, query_labels])
    classes = max(world.of_each(int(labels.max()) if len(labels) else 0)) + 1
    weights = linear_classifier(
        Standardised(bank, mean, deviation), bank_labels, classes, penalty, world
    )
    right = [query_labels[:0].bool()]
    for features, truth in with_labels(Standardised(queries, mean, deviation), query_labels):
        found = functional.linear(features, weights[:, :-1], weights[:, -1]).argmax(1)
        right.append(found == truth)
    return torch.cat(right)


def accuracy_of_all(right: Tensor, world: World) -> float:
    """The share of images of all workers that are right, in [0, 1]; bool [m], this worker's."""
    number, of = world.sum(torch.stack([right.sum(), torch.ones_like(right).sum()])).float()
    return float(number / of)


def linear_classifier(
    features: Iterable[Tensor], labels: Tensor, classes: int, penalty: float, world: World
) -> Tensor:
    """Weights [classes, D + 1] of multinomial logistic regression, the biases last.

    The minimum of ``mean cross-entropy + penalty / 2 · |weights without biases|²`` over features
    [n, D], in blocks of rows, and labels int64 [n] of all workers of `world`; in float32, on the
    device of the labels.
    """
    objective = _Objective(features, labels, penalty, world)
    whitening = _whitening(objective, classes)
    inner = torch.zeros(classes, len(whitening), device=labels.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [inner],
        max_iter=ITERATIONS,
        tolerance_grad=GRADIENT,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
        history_size=20,
    )

    def loss() -> Tensor:
        with torch.no_grad():
            weights = inner @ whitening.T
            world.told(weights.cpu())
            total, gradient = objective(weights)
            inner.grad = gradient @ whitening
        return total

    # One worker takes the steps: workers whose rounding differs would not stop at the same one.
    if world.is_first:
        optimizer.step(loss)
        world.told(None)
    else:
        while (asked := world.told(None)) is not None:
            objective(asked.to(labels.device))
    with torch.no_grad():
        return world.told((inner @ whitening.T).cpu()).to(labels.device)


class _Objective:
    """What is minimised, and its gradient; every worker must ask, with the same weights."""

    def __init__(
        self, features: Iterable[Tensor], labels: Tensor, penalty: float, world: World
    ) -> None:
        self.features, self.labels, self.penalty, self.world = features, labels, penalty, world
        self.count = sum(world.of_each(len(labels)))
        first = list(islice(self._read(), 2))
        self.only = first if len(first) == 1 else None
        """the only block, if there is one: it is not made ready again each time"""

    def blocks(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Features, with a last one of 1 for the bias, and labels."""
        return self.only or self._read()

    def _read(self) -> Iterator[tuple[Tensor, Tensor]]:
        for block, truth in with_labels(self.features, self.labels):
            yield functional.pad(block.float(), (0, 1), value=1.0), truth

    @torch.no_grad()
    def __call__(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, float64, and its gradient [classes, D + 1]."""
        gradient = torch.zeros_like(weights)
        entropy = torch.zeros((), dtype=torch.float64, device=weights.device)
        for block, truth in self.blocks():
            log_likely = torch.log_softmax(block @ weights.T, dim=1)
            entropy += functional.nll_loss(log_likely, truth, reduction="sum")
            error = log_likely.exp_()
            error[torch.arange(len(truth), device=truth.device), truth] -= 1
            gradient += error.T @ block
        gradient = self.world.sum(gradient) / self.count
        gradient[:, :-1] += self.penalty * weights[:, :-1]
        square = weights[:, :-1].square().sum()
        return self.world.sum(entropy) / self.count + self.penalty / 2 * square, gradient


def _whitening(objective: _Objective, classes: int) -> Tensor:
    """A matrix M [D + 1, D + 1]: with weights ``W = V Mᵀ`` the loss is about evenly curved in V.

    Features of a network are so correlated that L-BFGS would need hundreds of steps; so it needs
    some thirty. From the curvature at 0, ``features² / (n · classes) + penalty = L Lᵀ``, M is the
    transposed inverse of L.
    """
    zero = torch.zeros((), dtype=torch.float64, device=objective.labels.device)
    wide = sum(((block.T @ block).double() for block, _ in objective.blocks()), start=zero)
    wide = objective.world.sum(wide) / (objective.count * classes)
    diagonal = torch.full_like(wide[0], objective.penalty)
    lower = torch.linalg.cholesky(wide + diagonal.diag())
    one = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
    return torch.linalg.solve_triangular(lower, one, upper=False).T.float()


def _moments(rows: Iterable[Tensor], world: World) -> tuple[Tensor, Tensor]:
    """Mean and deviation [D] of the rows of all workers; 1 where there is no deviation."""
    zero = torch.zeros((), dtype=torch.float64, device=world.device)
    count = sum(world.of_each(sum(len(block) for block in rows)))
    mean = world.sum(sum((block.double().sum(0) for block in rows), start=zero)) / count
    squares = sum(((block.double() - mean).square().sum(0) for block in rows), start=zero)
    deviation = (world.sum(squares) / count).sqrt().float()
    return mean.float(), torch.where(deviation > 0, deviation, 1.0)
