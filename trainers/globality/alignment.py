"""How alike [CLS] and the mean patch token see images: linear CKA (Kornblith et al. 2019)."""

import torch
from torch import Tensor

from trainers.globality.tokens import Tokens
from trainers.model.vit import Layer
from trainers.system.world import World

DESCRIPTIONS = {
    "alignment/cls_patch": "linear CKA of [CLS] and the mean patch token, last block; 1: the "
    "same up to rotation and scale, about 0: nothing in common",
}

MOST_IMAGES = 1024
"""Images that are compared, the first ones: the comparison is of all pairs."""


def linear_cka(one: Tensor, other: Tensor) -> float:
    """Debiased linear CKA of features [n, D] and [n, E] of the same n > 3 images.

    ``HSIC(X, Y) / √(HSIC(X, X) HSIC(Y, Y))`` with the unbiased HSIC of Song et al. (2012), so that
    few images do not look alike by chance: about 0 for independent features (and may be below),
    1 for equal ones, whatever the rotation and scale. NaN where a feature is constant.
    """
    assert len(one) > 3, "four images or more"
    grams = []
    for features in (one, other):
        centred = features.double() - features.double().mean(0)
        gram = centred @ centred.T
        grams.append(gram - gram.diag().diag())
    cross, first, second = (_unbiased_hsic(grams[i], grams[j]) for i, j in ((0, 1), (0, 0), (1, 1)))
    if first <= 0 or second <= 0:
        return float("nan")
    return float(cross / (first * second).sqrt())


def _unbiased_hsic(one: Tensor, other: Tensor) -> Tensor:
    """Of two Gram matrices [n, n] with zero diagonals."""
    n = len(one)
    product = (one * other).sum()
    sums = one.sum() * other.sum() / ((n - 1) * (n - 2))
    rows = one.sum(0) @ other.sum(0) * 2 / (n - 2)
    return (product + sums - rows) / (n * (n - 3))


class Alignment:
    """An observer: linear CKA of [CLS] and the mean patch token after each block."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.kept: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, layer: Layer) -> None:
        """Keep both tokens of a layer of a batch."""
        kept = self.kept.setdefault(layer.number, [])
        left = MOST_IMAGES - sum(len(cls) for cls, _ in kept)
        if self.tokens.has_cls and left > 0:
            tokens = layer.tokens[:left]
            kept.append((tokens[:, 0].clone(), tokens[:, self.tokens.first :].mean(1)))

    def gather(self, world: World) -> None:
        """Take what all workers kept, who saw batches in turn; every worker must ask."""
        if world.size == 1:
            return
        depth = max(world.of_each(max(self.kept, default=0)))
        for number in range(1, depth + 1):
            mine = self.kept.get(number, [])
            every = zip(*(world.in_turn([pair[i] for pair in mine]) for i in (0, 1)), strict=True)
            self.kept[number] = list(every)

    def metrics(self) -> dict[str, float]:
        """The last block by name, each block as `name@LAYER`; nothing without [CLS]."""
        found = {}
        for number, kept in self.kept.items():
            if sum(len(cls) for cls, _ in kept) > 3:
                cls, patch = (torch.cat(parts)[:MOST_IMAGES] for parts in zip(*kept, strict=True))
                value = linear_cka(cls, patch)
                if value == value:
                    found[f"alignment/cls_patch@{number}"] = value
        last = f"alignment/cls_patch@{max(self.kept, default=0)}"
        return found | ({"alignment/cls_patch": found[last]} if last in found else {})
