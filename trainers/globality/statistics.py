"""Attention statistics in one pass, without ever holding the whole attention of a layer.

Shapes: B images, H heads, T = P + N tokens (P first ones: [CLS] if there is one, then registers),
N patches, Q queries at once, K features of a head.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.globality.functionals import (
    Grid,
    beyond_uniform,
    conditional,
    coverage,
    entropy,
    gyration,
)

MEASURES = {
    "gyration": "spread of the attention map over that of a uniform map (M1); 0 one patch, "
    "1 uniform",
    "entropy": "entropy of the attention map over that of a uniform map (M2); 0 to 1",
    "coverage": "share of patches that hold 60 % of the attention, over uniform's (M3, p = 0.6); "
    "1/N to 1",
    "coverage_90": "the same for 90 % of the attention (M3, p = 0.9)",
    "self_mass": "attention to oneself against uniform (M6); 0 uniform, 1 all",
    "patch_mass": "attention to the (other) patches, share of all; 0 to 1",
    "cls_mass": "attention to [CLS] against uniform (M6); 0 uniform, 1 all",
}
_ONLY_PATCH = {"cls_mass"}
_TOKENS = {"cls": "[CLS] queries", "patch": "patch queries"}

DESCRIPTIONS = {
    f"globality/{token}/{name}{suffix}": f"{text}; {whose}, mean over images, heads, {where}"
    for suffix, where in (("", "primary layer set"), ("/final_block", "final block"))
    for token, whose in _TOKENS.items()
    for name, text in MEASURES.items()
    if token == "patch" or name not in _ONLY_PATCH
} | {
    f"globality/contrast/{name}{suffix}": f"{text}; [CLS] minus patch queries, {where}"
    for suffix, where in (("", "primary layer set"), ("/final_block", "final block"))
    for name, text in MEASURES.items()
    if name not in _ONLY_PATCH
} | {
    "globality/undefined": "values left out because a query had no attention on patches; count"
}  # fmt: skip

Place = tuple[str, str, int, int]
"""token, measure, layer and head, both counted from 1"""


@dataclass(frozen=True)
class Accumulator:
    """Sums over images and queries, by place: a commutative monoid under `merge`."""

    sums: dict[Place, tuple[int, float]]
    """of each place, how many values there were and their sum"""
    undefined: int
    """values that were NaN; they are in no sum"""
    layers: int

    def merge(self, other: "Accumulator") -> "Accumulator":
        """What one pass over both parts would have given, up to rounding of float64 sums."""
        sums = dict(self.sums)
        for place, (count, total) in other.sums.items():
            before = sums.get(place, (0, 0.0))
            sums[place] = (before[0] + count, before[1] + total)
        return Accumulator(sums, self.undefined + other.undefined, max(self.layers, other.layers))

    def metrics(self, primary_layers: tuple[int, ...]) -> dict[str, float]:
        """Run-level values by name, then each layer and head as `name@LAYER.HEAD`.

        The mean over images and queries comes first, then that over heads and layers. What has no
        value at all is left out.
        """
        means = {place: total / count for place, (count, total) in self.sums.items() if count}
        found: dict[str, float] = {}
        for layers, suffix in ((primary_layers, ""), ((self.layers,), "/final_block")):
            for name in MEASURES:
                levels = {}
                for token in _TOKENS:
                    values = [
                        mean
                        for place, mean in means.items()
                        if place[:2] == (token, name) and place[2] in layers
                    ]
                    if values:
                        levels[token] = sum(values) / len(values)
                        found[f"globality/{token}/{name}{suffix}"] = levels[token]
                if len(levels) == 2:
                    contrast = levels["cls"] - levels["patch"]
                    found[f"globality/contrast/{name}{suffix}"] = contrast
        found["globality/undefined"] = float(self.undefined)
        for (token, name, layer, head), mean in means.items():
            found[f"globality/{token}/{name}@{layer}.{head}"] = mean
        return found


def measure_attention(
    layers: Iterable[tuple[Tensor, Tensor]],
    grid: Grid,
    query_chunk: int,
    *,
    has_cls: bool = True,
    registers: int = 0,
) -> Accumulator:
    """Statistics of every block's attention, softmax(q kᵀ / √K), over one batch.

    `layers` gives queries and keys [B, H, T, K] of each block. The [CLS] row costs O(T); patch
    rows are taken `query_chunk` at a time, so no tensor of B · H · T · T elements is made.
    Computed in float32.
    """
    sums: dict[Place, tuple[int, float]] = {}
    undefined = 0
    number = 0
    for number, (queries, keys) in enumerate(layers, start=1):
        scale = queries.shape[-1] ** -0.5
        queries, keys_KT = queries.float() * scale, keys.float().transpose(2, 3)
        first = has_cls + registers
        patches = queries.shape[2] - first
        chunks: list[tuple[str, Tensor | None, Tensor]] = []
        if has_cls:
            chunks.append(("cls", None, queries[:, :, :1]))
        for places in torch.arange(patches, device=queries.device).split(query_chunk):
            chunks.append(("patch", places, queries[:, :, first + places]))
        for token, places, some in chunks:
            # Under the caller's autocast these products would be made in bfloat16.
            with torch.autocast(queries.device.type, enabled=False):
                attention = torch.softmax(some @ keys_KT, dim=-1)
                measures = _measures(attention, grid, places, first, has_cls)
            for name, values_BHQ in measures.items():
                known = ~values_BHQ.isnan()
                counts = known.sum((0, 2)).tolist()
                totals = values_BHQ.double().nansum((0, 2)).tolist()
                undefined += values_BHQ.numel() - sum(counts)
                for head, (count, total) in enumerate(zip(counts, totals, strict=True), start=1):
                    place = (token, name, number, head)
                    before = sums.get(place, (0, 0.0))
                    sums[place] = (before[0] + count, before[1] + total)
    return Accumulator(sums, undefined, number)


def _measures(
    attention_BHQT: Tensor, grid: Grid, places: Tensor | None, first: int, has_cls: bool
) -> dict[str, Tensor]:
    tokens = attention_BHQT.shape[-1]
    maps, mass = conditional(attention_BHQT, places, first)
    if places is None:
        self_mass = attention_BHQT[..., 0]
    else:
        own = (first + places)[:, None].expand(*attention_BHQT.shape[:-1], 1)
        self_mass = attention_BHQT.gather(-1, own)[..., 0]
    most, nearly_all = coverage(maps, (0.6, 0.9), places)
    found = {
        "gyration": gyration(maps, grid, places),
        "entropy": entropy(maps, places),
        "coverage": most,
        "coverage_90": nearly_all,
        "self_mass": beyond_uniform(self_mass, tokens),
        "patch_mass": mass,
    }
    if places is not None and has_cls:
        found["cls_mass"] = beyond_uniform(attention_BHQT[..., 0], tokens)
    return found
