"""What a sink does: no-op or broadcast, by the rule of Fesser et al. (2026, arXiv 2606.08105).

The token that a head attends to most is a sink of an image when it receives SINK of all attention
(ε of Gu et al. 2025, arXiv 2410.10781). It is a no-op when what the head writes for it is next to
nothing, and broadcasts when that is not little and the head writes nearly the same everywhere.
"""

import torch
from torch import Tensor

from trainers.globality.accumulator import Accumulator
from trainers.globality.functionals import median
from trainers.globality.statistics import BYTES, written_norms
from trainers.globality.tokens import Tokens
from trainers.model.attention import within
from trainers.model.vit import Layer

GROUP = "sinks"

SINK = 0.3
"""share of all attention that makes a token a sink"""
NO_OP, WRITES, LOW_RANK = 0.2, 0.5, 1.5
"""projected value norm up to which a sink is a no-op, from which it may broadcast, and the stable
rank of the head's output up to which it then does"""

IMAGES = 32
"""Images that are looked at, the first ones: heads' outputs take another product with values."""

DESCRIPTIONS = {
    f"{GROUP}/head/share": f"heads in which one token receives {SINK:.0%} of all attention, share",
    f"{GROUP}/head/no_op": "heads with a sink that writes next to nothing (projected value norm "
    f"≤ {NO_OP}), share",
    f"{GROUP}/head/broadcast": "heads with a sink that writes the same everywhere (projected value "
    f"norm ≥ {WRITES}, stable rank ≤ {LOW_RANK}), share",
    f"{GROUP}/head/on_cls": "heads in which the sink is [CLS], share",
    f"{GROUP}/head/on_register": "heads in which the sink is a register, share",
    f"{GROUP}/head/on_patch": "heads in which the sink is a patch, share",
    f"{GROUP}/head/projected_norm": "norm of what a head writes for the most attended token, over "
    "the median token's",
    f"{GROUP}/head/stable_rank": "squared Frobenius over squared spectral norm of what a head "
    "writes; 1: the same direction for all tokens",
    f"{GROUP}/head/undefined": "share of values left out because a head writes nothing, "
    "or something that is not finite",
}


class Sinks:
    """An observer of layers: adds what their sinks do to `total`, by image and head.

    `memory` bounds the attention weights that are held at once, MiB (at least those of one query).
    """

    def __init__(self, tokens: Tokens, *, memory: float) -> None:
        self.tokens, self.memory = tokens, memory
        self.total = Accumulator()
        self.seen: dict[int, int] = {}

    def __call__(self, layer: Layer) -> None:
        """Take one layer of a batch."""
        seen = self.seen.setdefault(layer.number, 0)
        for image in range(min(len(layer.queries), IMAGES - seen)):
            self._see(layer, slice(image, image + 1))
            self.seen[layer.number] += 1

    def _see(self, layer: Layer, image: slice) -> None:
        with torch.autocast(layer.queries.device.type, enabled=False):
            values_HTK = layer.values[image].float()[0]
            projection_HKD = layer.projection.float()
            received_HT, gram_HKK = self._received_and_gram(layer, image, values_HTK)
            written_HT = written_norms(values_HTK[None], projection_HKD)[0]
            sink_H1 = received_HT.argmax(-1, keepdim=True)
            norm_H = written_HT.gather(-1, sink_H1)[:, 0] / median(written_HT)
            rank_H = stable_rank(gram_HKK, projection_HKD)
        sink_H = sink_H1[:, 0]
        is_sink = received_HT.amax(-1) >= SINK
        has_cls, first = self.tokens.has_cls, self.tokens.first
        found = {
            "share": is_sink,
            "no_op": is_sink & (norm_H <= NO_OP),
            "broadcast": is_sink & (norm_H >= WRITES) & (rank_H <= LOW_RANK),
            "on_patch": is_sink & (sink_H >= first),
            "projected_norm": norm_H,
            "stable_rank": rank_H,
        }
        if has_cls:
            found["on_cls"] = is_sink & (sink_H == 0)
        if self.tokens.registers:
            found["on_register"] = is_sink & (sink_H >= int(has_cls)) & (sink_H < first)
        for name, values in found.items():
            self.total.add((GROUP, "head", name, layer.number), values.float()[None, :, None])

    def _received_and_gram(
        self, layer: Layer, image: slice, values_HTK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Share of attention that each token receives [H, T], and Σ x xᵀ of mixed values [H, K, K].

        Measured patch queries stand for all patches.
        """
        queries = layer.queries[image].float()[0] * layer.queries.shape[-1] ** -0.5
        keys_HKT = layer.keys[image].float()[0].transpose(1, 2)
        device = queries.device
        places = torch.cat(
            [
                torch.arange(self.tokens.first, device=device),
                self.tokens.first + self.tokens.patch_queries,
            ]
        )
        weights = torch.ones(len(places), device=device)
        weights[self.tokens.first :] = self.tokens.patches / len(self.tokens.patch_queries)
        heads, _, features = values_HTK.shape
        received = torch.zeros(heads, self.tokens.count, device=device)
        gram = torch.zeros(heads, features, features, device=device)
        one = heads * self.tokens.count * BYTES / 2**20
        for part in torch.arange(len(places), device=device).split(max(1, int(self.memory / one))):
            rows = places[part]
            allowed = None if layer.allowed is None else layer.allowed[rows]
            scores = within(queries[:, rows] @ keys_HKT, allowed)
            attention_HQT = torch.softmax(scores, dim=-1)
            weight = weights[part][:, None]
            received += (attention_HQT * weight).sum(1)
            mixed_HQK = attention_HQT @ values_HTK
            gram += mixed_HQK.transpose(1, 2) @ (mixed_HQK * weight)
        return received / self.tokens.count, gram


def stable_rank(gram_HKK: Tensor, projection_HKD: Tensor) -> Tensor:
    """``‖X W‖_F² / ‖X W‖₂²`` [H] from ``XᵀX`` [H, K, K] and W [H, K, D]; NaN for nothing.

    The squared singular values of X W are the eigenvalues of ``W Wᵀ XᵀX``, which are those of
    ``Sᵀ (W Wᵀ) S`` with ``XᵀX = S Sᵀ``. NaN, too, where something is not finite.
    """
    known = gram_HKK.isfinite().all() & projection_HKD.isfinite().all()
    if not known:
        return gram_HKK.new_full(gram_HKK.shape[:1], torch.nan)
    form = (projection_HKD.double() @ projection_HKD.double().transpose(1, 2)).cpu()
    values, vectors = torch.linalg.eigh(gram_HKK.double().cpu())
    root = vectors * values.clamp(min=0).sqrt()[:, None, :]
    squares = torch.linalg.eigvalsh(root.transpose(1, 2) @ form @ root).clamp(min=0)
    largest = squares.amax(-1)
    found = squares.sum(-1) / torch.where(largest > 0, largest, torch.nan)
    return found.to(gram_HKK)
