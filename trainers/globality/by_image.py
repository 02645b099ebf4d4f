"""Values of each image, beside their mean over images: which images are measured is chance too."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from trainers.system.world import World

Place = tuple[str, str, str, int]
"""group, token, measure, and layer from 1 (0 where there is none)"""

OF_MEAN_MAPS = ("positional_bias", "content_dependence")
"""Measures of the mean map over images."""

MapPlace = tuple[str, str, int]
"""group, token and layer of maps of which the mean over images is needed"""

CONTRASTS = {
    "cls": "contrast",
    "register": "register_contrast",
    "fixed_patch": "fixed_patch_contrast",
}
"""Of each token, the name under which its value minus that of patch queries is reported."""


class ImageSums:
    """Of each image, by place and head, how many values there were, and their sum.

    Of what has no layer, and of `layers` alone: those that a run-level value is the mean of. Kept
    on the host.
    """

    def __init__(self, layers: Collection[int]) -> None:
        self.layers = {0, *layers}
        self.first = 0
        """number of the first image of the batch that is being seen"""
        self._parts: dict[Place, dict[range, Tensor]] = defaultdict(dict)
        self._maps: dict[MapPlace, dict[range, Tensor]] = defaultdict(dict)

    def add(self, place: Place, images: range, known_BHQ: Tensor, values_BHQ: Tensor) -> None:
        """Count values of `images`, numbers in the batch, in; unknown ones must be 0."""
        if place[3] not in self.layers:
            return
        numbers = range(self.first + images.start, self.first + images.stop, images.step)
        counts = known_BHQ.sum(2, dtype=values_BHQ.dtype)
        more = torch.stack([counts, values_BHQ.sum(2)]).float().cpu()
        parts = self._parts[place]
        # Queries of the same images may come in parts.
        parts[numbers] = parts[numbers] + more if numbers in parts else more

    def add_maps(self, place: MapPlace, images: range, maps_BHQN: Tensor, nats_BHQ: Tensor) -> None:
        """Keep all maps of `images`, and their entropies; these are NaN where there is no map.

        Those of many patch queries are left out: they would take too much memory.
        """
        if place[1] == "patch" or place[2] not in self.layers:
            return
        numbers = range(self.first + images.start, self.first + images.stop, images.step)
        more = torch.cat([maps_BHQN, nats_BHQ[..., None]], dim=-1).float().cpu()
        parts = self._maps[place]
        # Queries of the same images may come in parts.
        parts[numbers] = torch.cat([parts[numbers], more], dim=2) if numbers in parts else more

    def values(
        self,
        sums: Mapping[Place, Tensor],
        maps: Mapping[MapPlace, Tensor],
        metrics: Mapping[str, float],
        primary: tuple[int, ...],
        images: int,
        world: World,
    ) -> dict[str, Tensor]:
        """Of each of `metrics` that is one of images, its value of every image, float32 [n].

        In order of numbers, which are below `images`; the mean is the metric. `sums` are those of
        all workers of `world`, every one of which must ask, by place: [2, H]; `maps` those that
        `Accumulator.maps` has. An image that lacks some values weighs less in the mean: then its
        value is the metric plus what it adds to it, n times, to first order. So it is for what is
        of the mean map over images: the infinitesimal jackknife (Jaeckel 1972).
        """
        series: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for group, token, measure, layer in sums:
            series[group, token, measure].append(layer)
        final = max((layer for *_, layer in sums), default=0)
        found: dict[str, Tensor] = {}
        seen: list[int] = []
        for (group, token, measure), layers in series.items():
            for suffix, chosen in chosen_layers(layers, primary, final).items():
                places = [(group, token, measure, one) for one in chosen if one in layers]
                patches = [(group, "patch", *place[2:]) for place in places]
                names = {f"{group}/{token}/{measure}{suffix}": False}
                if token in CONTRASTS and all(place in sums for place in patches):
                    names[f"{group}/{CONTRASTS[token]}/{measure}{suffix}"] = True
                for name, minus_patches in names.items():
                    if name in metrics:
                        parts = [self._share(place, sums[place], images) for place in places]
                        added = torch.cat(parts, dim=1)
                        if minus_patches:
                            parts = [self._share(place, sums[place], images) for place in patches]
                            added = added - torch.cat(parts, dim=1)
                        found[name] = added.nanmean(1)
                        seen.append(sum(map(len, self._parts[places[0]])))
        for measure in OF_MEAN_MAPS:
            layers_of: dict[tuple[str, str], list[int]] = defaultdict(list)
            for group, token, layer in maps:
                if token != "patch":
                    layers_of[group, token].append(layer)
            for (group, token), layers in layers_of.items():
                last = max(layer for *_, layer in maps)
                for suffix, chosen in chosen_layers(layers, primary, last).items():
                    name = f"{group}/{token}/{measure}{suffix}"
                    if name in metrics:
                        where = [(group, token, one) for one in chosen if one in layers]
                        shares = [self._influence(one, maps[one], measure, images) for one in where]
                        found[name] = torch.cat(shares, dim=1).nanmean(1)
                        seen.append(sum(map(len, self._maps[where[0]])))
        if not found:
            return {}
        # Each image was seen by one worker.
        every = world.sum(torch.stack(list(found.values())).to(world.device)).cpu()
        counts = world.sum(torch.tensor(seen, device=world.device)).tolist()
        return {
            name: (metrics[name] + count * added[:count]).float()
            for name, count, added in zip(found, counts, every, strict=True)
            if count
        }

    def _share(self, place: Place, sums: Tensor, images: int) -> Tensor:
        """What each image adds to the mean of a place, [images, H]; NaN where nothing is known."""
        count, total = torch.where(sums[0] > 0, sums, torch.nan).cpu()
        shares = (0 * count).expand(images, -1).clone()
        for numbers, (counted, summed) in self._parts[place].items():
            rows = slice(numbers.start, numbers.stop, numbers.step)
            shares[rows] = (summed - total / count * counted) / count
        return shares

    def _influence(self, place: MapPlace, sums_HQN: Tensor, measure: str, images: int) -> Tensor:
        """What each image adds to a measure of a mean map to first order, [images, H].

        With p the map of an image and m the mean map, H(m) moves by -Σ (p - m) ln m.
        """
        sums = sums_HQN.cpu()
        total, count_HQ, nats_HQ = sums[..., :-2], sums[..., -2], sums[..., -1]
        count_HQ = torch.where(count_HQ > 0, count_HQ, torch.nan)
        mean_HQN = total / count_HQ[..., None]
        # Where the mean is 0, every map is.
        surprise_HQN = -torch.where(mean_HQN > 0, mean_HQN, 1.0).log()
        mean_entropy = torch.special.entr(mean_HQN).sum(-1)
        counted = total.shape[-1] - (place[1] == "fixed_patch")
        scale = math.log(counted) if counted > 1 else 1
        shares = (0 * count_HQ).expand(images, *count_HQ.shape).clone()
        for numbers, both in self._maps[place].items():
            maps_BHQN, nats_BHQ = both[..., :-1].double(), both[..., -1].double()
            known = nats_BHQ.isfinite()
            of_mean = (maps_BHQN * surprise_HQN).sum(-1) - mean_entropy
            of_maps = nats_BHQ - nats_HQ / count_HQ
            moved = -of_mean if measure == "positional_bias" else of_mean - of_maps
            moved = torch.where(known, moved, 0.0) / count_HQ / scale
            shares[slice(numbers.start, numbers.stop, numbers.step)] = moved
        return shares.nanmean(-1)


def chosen_layers(
    layers: Collection[int], primary: tuple[int, ...], final: int
) -> dict[str, tuple[int, ...]]:
    """By suffix, the layers whose mean is reported; those of the network as a whole have one."""
    return {"": (0,)} if set(layers) == {0} else {"": primary, "/final_block": (final,)}
