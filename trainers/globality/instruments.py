"""Everything that is measured of one network's globality, batch by batch."""

import dataclasses
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainers.data.augment import shuffle
from trainers.globality.accumulator import Accumulator
from trainers.globality.by_image import ImageSums
from trainers.globality.causal import Replacement, measure_causes
from trainers.globality.rollout import RolloutStatistics
from trainers.globality.statistics import AttentionStatistics
from trainers.globality.tokens import Tokens, stratified
from trainers.grid import Grid
from trainers.model.vit import Features, Layer, Observer
from trainers.randomness.forward_draws import ForwardDraws, keyed


class Observable(Protocol):
    """A network that shows its layers: our own, or a foreign backbone."""

    def __call__(
        self, images: Tensor, draws: ForwardDraws | None = None, *, observe: Observer | None = None
    ) -> Features:
        """Features of images [B, 3, S, S]."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, on how much, and in how much memory."""

    memory: float
    """attention weights held at once, MiB"""
    patch_queries: int
    """patch queries of grids with more patches than `tokens.ALL_UP_TO`"""
    causal_images: int
    """images for influence and gradient reach; fewer than 2: neither"""
    replacement: Replacement
    """what a patch is replaced with for its influence"""
    images_of_mean: int = 0
    """images whose mean that is, if more than those for influence"""
    distances: bool = False
    """mean attention distance, which no run of a study records"""
    seed: int = 0
    """of shuffles and of directions of gradients"""


class Instruments:
    """Measures one network: a batch at a time, then `metrics`.

    For each batch, run the network with `observer(...)` and hand the same images to `see`, which
    makes further passes for the controls. Attention, its norm-weighted kind and rollout come from
    the first pass; patch-shuffled images and mirrored ones are the controls; influence and
    gradient reach are measured on the first `causal_images` when all have been seen. `of_images`
    keeps values of each image.
    """

    def __init__(
        self,
        network: Observable,
        grid: Grid,
        *,
        has_cls: bool,
        registers: int,
        fixed_patch: int | None,
        settings: Settings,
        device: torch.device,
        of_images: ImageSums | None = None,
    ) -> None:
        self.network, self.settings = network, settings
        self.tokens = Tokens(
            grid=grid,
            has_cls=has_cls,
            registers=registers,
            patch_queries=stratified(grid, settings.patch_queries, device),
            fixed_patch=fixed_patch,
        )
        memory = settings.memory
        self.attention = AttentionStatistics(
            self.tokens,
            memory=memory,
            norm_weighted=True,
            distances=settings.distances,
            of_images=of_images,
        )
        self.rollout = RolloutStatistics(self.tokens, memory=memory, of_images=of_images)
        self.shuffled = AttentionStatistics(
            self.tokens, memory=memory, group="shuffled", of_images=of_images
        )
        self.mirrored = AttentionStatistics(
            self.tokens, memory=memory, group="mirrored", only_mean_maps=True
        )
        self.causal: list[tuple[Tensor, ForwardDraws]] = []
        self.of_mean: list[Tensor] = []
        self.influence: Tensor | None = None
        """of the images for it on every measured token [n, Q, N], once `total` was asked"""

    def observer(self) -> Observer:
        """What the network's forward pass is to be given."""
        return of_first(None, self.attention, self.mirrored, self.rollout)

    @torch.no_grad()
    def see(self, crops: Tensor, draws: ForwardDraws, identifiers: Tensor) -> None:
        """Take the images [B, 3, S, S], normalised, that were just observed.

        `identifiers` int64 [B] name them: a shuffled image is always shuffled in the same way.
        """
        self.rollout.finish()
        source = keyed(
            self.settings.seed,
            "globality/shuffled images",
            identifiers,
            torch.zeros_like(identifiers),
            range(1),
        )
        patch = crops.shape[-1] // self.tokens.grid[1]
        self.network(shuffle(crops, source, patch), draws, observe=self.shuffled)
        self.network(crops.flip(-1), draws, observe=self.mirrored)
        room = self.settings.causal_images - sum(len(kept) for kept, _ in self.causal)
        if room > 0:
            first = torch.arange(min(room, len(crops)), device=crops.device)
            self.causal.append((crops[first], draws.rows(first)))
        room = self.settings.images_of_mean - sum(map(len, self.of_mean))
        if room > 0:
            self.of_mean.append(crops[:room])

    def total(self) -> Accumulator:
        """The sums over everything seen; influence and reach are measured now."""
        total = self.attention.total.merge(self.rollout.total)
        total = total.merge(self.shuffled.total).merge(self.mirrored.total)
        images = sum(len(kept) for kept, _ in self.causal)
        if images > 1:
            others = torch.cat(self.of_mean) if self.of_mean else None
            causes, self.influence, _ = measure_causes(
                self.network,
                self.causal,
                self.tokens,
                replacement=self.settings.replacement,
                seed=self.settings.seed,
                others=others if others is not None and len(others) > images else None,
            )
            total = total.merge(causes)
        return total


def of_first(images: int | None, *observers: Observer) -> Observer:
    """An observer that hands the first images of each layer (all, if none) to several others."""

    def observe(layer: Layer) -> None:
        if images is not None and images < len(layer.queries):
            layer = dataclasses.replace(
                layer,
                **{
                    name: getattr(layer, name)[:images]
                    for name in ("queries", "keys", "values", "normalised", "tokens")
                },
            )
        for each in observers:
            each(layer)

    return observe
