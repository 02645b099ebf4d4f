"""The geometry of tokens: how many directions patches take, how near [CLS] is to them."""

import torch
from torch import Tensor

from trainers.globality.accumulator import Accumulator
from trainers.globality.tokens import Tokens
from trainers.model.vit import Layer

GROUP = "geometry"

IMAGES = 32
"""Images of which the effective rank is taken, the first ones."""

DESCRIPTIONS = {
    f"{GROUP}/patch/effective_rank": "effective rank of the patch tokens of an image after the "
    "block (Roy & Vetterli 2007); 1 all alike, at most patches or width",
    f"{GROUP}/cls/patch_cosine": "cosine of [CLS] and the mean patch before the block's layer norm "
    "(from the second block on; behind it: globality/cls/patch_cosine)",
    f"{GROUP}/patch/undefined": "share of values left out because all tokens are 0, or "
    "one is not finite",
    f"{GROUP}/cls/undefined": "share of values left out because a token is not finite",
}


class Geometry:
    """An observer of layers, in order: adds the geometry of their tokens to `total`."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.total = Accumulator()
        self.seen: dict[int, int] = {}
        self.before: Tensor | None = None
        """cosines [B] of the tokens that the next block is given"""

    def __call__(self, layer: Layer) -> None:
        """Take one layer of a batch."""
        tokens, first = layer.tokens.float(), self.tokens.first
        if self.tokens.has_cls:
            if layer.number > 1 and self.before is not None:
                place = (GROUP, "cls", "patch_cosine", layer.number)
                self.total.add(place, self.before[:, None, None])
            self.before = torch.cosine_similarity(tokens[:, 0], tokens[:, first:].mean(1), dim=-1)
        seen = self.seen.get(layer.number, 0)
        some = tokens[: max(0, IMAGES - seen), first:]
        if len(some):
            place = (GROUP, "patch", "effective_rank", layer.number)
            self.total.add(place, effective_rank(some)[:, None, None])
            self.seen[layer.number] = seen + len(some)


def effective_rank(features_BND: Tensor) -> Tensor:
    """``exp H(σ / Σσ)`` of the singular values σ of each matrix, [B] (Roy & Vetterli 2007).

    1 for rank one, the rank for equal singular values; NaN where all is 0 or some not finite.
    """
    rows = []
    for features in features_BND.cpu():
        if not features.isfinite().all():
            rows.append(features.new_zeros(min(features.shape), dtype=torch.float64))
            continue
        exact = features.double() if features.shape[0] <= features.shape[1] else features.double().T
        # Several times as fast as singular values themselves; σ are off by 1e-8 of the largest.
        rows.append(torch.linalg.eigvalsh(exact @ exact.T))
    values = torch.stack(rows).clamp(min=0).sqrt()
    total = values.sum(-1, keepdim=True)
    shares = values / torch.where(total > 0, total, torch.nan)
    return torch.special.entr(shares).sum(-1).exp().to(features_BND)


def principal_components(features_BND: Tensor) -> Tensor:
    """The three first principal components of the tokens of all images, [B, 3, N], in 0 to 1.

    To be shown as red, green and blue (Oquab et al. 2023, figure 1): of each component the values
    from the 1st to the 99th percentile are spread over 0 to 1. The largest loading of a component
    is positive. Components that are not there, or of single tokens, are 0.5, and so is all where a
    token is not finite.
    """
    features = features_BND.double().cpu().flatten(0, 1)
    found = torch.full((3, len(features)), 0.5, dtype=torch.float64)
    if not features.isfinite().all():
        return found.view(3, *features_BND.shape[:2]).transpose(0, 1).float()
    features = features - features.mean(0)
    values, directions = torch.linalg.eigh(features.T @ features)
    values, directions = values.flip(0), directions.T.flip(0)
    for number, (value, direction) in enumerate(zip(values[:3], directions[:3], strict=True)):
        # Squares of singular values, to rounding.
        if value <= values[0] * 1e-14:
            continue
        shown = features @ (direction * direction[direction.abs().argmax()].sign())
        low, high = shown.quantile(torch.tensor([0.01, 0.99], dtype=torch.float64))
        if high > low:
            found[number] = ((shown - low) / (high - low)).clamp(0, 1)
    return found.view(3, *features_BND.shape[:2]).transpose(0, 1).float()
