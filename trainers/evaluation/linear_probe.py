"""Linear classification of frozen features (Caron et al. 2021, section 4.1), to the optimum.

L-BFGS on the whole training part in place of DINO's 100 epochs of SGD: nothing to tune but the
penalty, nothing random, and the same bits each time. scikit-learn's LogisticRegression finds the
same optimum (the tests compare), but on the CPU alone: some minutes for 100,000 images of 1,000
classes, at every evaluation.
"""

import torch
from torch import Tensor
from torch.nn import functional

DESCRIPTIONS = {
    "linear_probe/cls_top1": "accuracy of a linear classifier of held-out images on [CLS] of the "
    "last blocks; share, 0 to 1 (Caron et al. 2021)",
    "linear_probe/patch_top1": "the same on the mean patch token of the last blocks",
}

ITERATIONS = 100
"""Steps of L-BFGS at most."""

GRADIENT = 1e-5
"""Largest gradient, where curvature is about 1, at which the optimum counts as found; nats."""


@torch.enable_grad()
def linear_classifier(features: Tensor, labels: Tensor, classes: int, penalty: float) -> Tensor:
    """Weights [classes, D + 1] of multinomial logistic regression, the biases last.

    The minimum of ``mean cross-entropy + penalty / 2 · |weights without biases|²`` over features
    [n, D] and labels int64 [n]; in float32, on the device of the features.
    """
    features = functional.pad(features.float(), (0, 1), value=1.0)
    whitening = _whitening(features, classes, penalty)
    white = features @ whitening
    inner = torch.zeros(classes, white.shape[1], device=white.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [inner],
        max_iter=ITERATIONS,
        tolerance_grad=GRADIENT,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
        history_size=20,
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = functional.cross_entropy(white @ inner.T, labels)
        weights = (inner @ whitening.T)[:, :-1]
        total = entropy + penalty / 2 * weights.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return inner.detach() @ whitening.T


def _whitening(features: Tensor, classes: int, penalty: float) -> Tensor:
    """A matrix M [D + 1, D + 1]: with weights ``W = V Mᵀ`` the loss is about evenly curved in V.

    Features of a network are so correlated that L-BFGS would need hundreds of steps; so it needs
    some thirty. From the curvature at 0, ``features² / (n · classes) + penalty = L Lᵀ``, M is the
    transposed inverse of L.
    """
    wide = features.T @ features / (len(features) * classes)
    diagonal = torch.full_like(wide[0], penalty, dtype=torch.float64)
    lower = torch.linalg.cholesky(wide.double() + diagonal.diag())
    one = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
    return torch.linalg.solve_triangular(lower, one, upper=False).T.float()


def linear_accuracy(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, *, penalty: float
) -> float:
    """Share of queries whose label a classifier trained on the bank finds, in [0, 1].

    Features [n, D] and [m, D], standardised by the moments of the bank; labels int64 [n] and [m].
    """
    mean, deviation = bank.mean(0), bank.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    classes = int(max(bank_labels.max(), query_labels.max())) + 1
    weights = linear_classifier((bank - mean) / deviation, bank_labels, classes, penalty)
    found = functional.linear((queries - mean) / deviation, weights[:, :-1], weights[:, -1])
    return float((found.argmax(1) == query_labels).float().mean())
