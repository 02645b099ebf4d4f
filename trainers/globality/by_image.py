"""Values of each image, beside their mean over images: which images are measured is chance too."""

from collections import defaultdict
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from trainers.system.world import World

Place = tuple[str, str, str, int]
"""group, token, measure, and layer from 1 (0 where there is none)"""

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

    def values(
        self,
        sums: Mapping[Place, Tensor],
        metrics: Mapping[str, float],
        primary: tuple[int, ...],
        images: int,
        world: World,
    ) -> dict[str, Tensor]:
        """Of each of `metrics` that is a mean over images, its value of every image, float32 [n].

        In order of numbers, which are below `images`; the mean is the metric. `sums` are those of
        all workers of `world`, every one of which must ask, by place: [2, H]. An image that lacks
        some values weighs less in the mean: then its value is the metric plus what it adds to it,
        n times, to first order.
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
        if not found:
            return {}
        # Each image was seen by one worker.
        every = world.sum(torch.stack(list(found.values())).to(world.device)).cpu()
        counts = world.sum(torch.tensor(seen, device=world.device)).tolist()
        return {
            name: (metrics[name] + count * added[:count]).float()
            for name, count, added in zip(found, counts, every, strict=True)
        }

    def _share(self, place: Place, sums: Tensor, images: int) -> Tensor:
        """What each image adds to the mean of a place, [images, H]; NaN where nothing is known."""
        count, total = torch.where(sums[0] > 0, sums, torch.nan).cpu()
        shares = (0 * count).expand(images, -1).clone()
        for numbers, (counted, summed) in self._parts[place].items():
            rows = slice(numbers.start, numbers.stop, numbers.step)
            shares[rows] = (summed - total / count * counted) / count
        return shares


def chosen_layers(
    layers: Collection[int], primary: tuple[int, ...], final: int
) -> dict[str, tuple[int, ...]]:
    """By suffix, the layers whose mean is reported; those of the network as a whole have one."""
    return {"": (0,)} if set(layers) == {0} else {"": primary, "/final_block": (final,)}
