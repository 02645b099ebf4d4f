"""Sums that measurements of images add up to: parts of a data set merge in any order."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from trainers.globality.by_image import CONTRASTS, ImageSums, Place, chosen_layers
from trainers.globality.functionals import content_dependence, positional_bias
from trainers.system.world import World

Key = TypeVar("Key")


@dataclass
class Accumulator:
    """Counts and sums by place and head: a commutative monoid under `merge`.

    The same for sums of maps, of which the mean over images is needed. All float64.
    """

    values: dict[Place, Tensor] = field(default_factory=dict)
    """[2, H]: how many values there were, and their sum"""
    maps: dict[tuple[str, str, int], Tensor] = field(default_factory=dict)
    """by group, token and layer, [H, Q, N + 2]: sum of the maps of a query, their number, and the
    sum of their entropies in nats"""
    undefined: Counter[tuple[str, str]] = field(default_factory=Counter)
    """by group and token, values that were NaN or infinite; they are in no sum"""
    of_images: ImageSums | None = None
    """which is given all that is added, where values of each image are kept"""

    def add(self, place: Place, values_BHQ: Tensor, images: range | None = None) -> None:
        """Count values of B images, H heads and Q queries in; what is undefined is left out.

        `images` are their numbers in the batch; without them they are all of it.
        """
        known = values_BHQ.isfinite()
        exact = values_BHQ.double().where(known, 0.0)
        sums = torch.stack([part.sum((0, 2)) for part in (known.double(), exact)])
        self.undefined[place[:2]] += values_BHQ.numel() - int(known.sum())
        self._add(self.values, place, sums)
        if self.of_images is not None:
            self.of_images.add(place, images or range(len(exact)), known, exact)

    def add_map_sums(self, place: tuple[str, str, int], sums_HQN: Tensor) -> None:
        """Add `map_sums` of all queries of some images."""
        self._add(self.maps, place, sums_HQN)

    def keep_maps(
        self, place: tuple[str, str, int], images: range, maps_BHQN: Tensor, nats_BHQ: Tensor
    ) -> None:
        """Hand on the maps of all queries of some images, where values of each image are kept."""
        if self.of_images is not None:
            self.of_images.add_maps(place, images, maps_BHQN, nats_BHQ)

    @staticmethod
    def _add(sums: dict[Key, Tensor], place: Key, more: Tensor) -> None:
        sums[place] = sums[place] + more if place in sums else more

    def merge(self, other: "Accumulator") -> "Accumulator":
        """What one pass over both parts would have given, up to rounding of float64 sums."""
        merged = Accumulator(dict(self.values), dict(self.maps), self.undefined.copy())
        merged.undefined.update(other.undefined)
        for place, sums in other.values.items():
            self._add(merged.values, place, sums)
        for where, sums in other.maps.items():
            self._add(merged.maps, where, sums)
        return merged

    def of_all(self, world: World) -> "Accumulator":
        """What all workers saw, as if merged; every worker must ask."""
        if world.size == 1:
            return self
        total = Accumulator()
        for undefined in world.of_each(self.undefined):
            total.undefined.update(undefined)
        total.values = _summed(self.values, world)
        total.maps = _summed(self.maps, world)
        return total

    def means(self) -> dict[Place, list[float]]:
        """Mean of each place by head, NaN where there was no value; maps as bias and content."""
        found = {}
        for place, (count, total) in self.values.items():
            found[place] = (total / torch.where(count > 0, count, torch.nan)).tolist()
        for (group, token, layer), sums in self.maps.items():
            bias, content = _of_mean_map(sums, own=token in ("patch", "fixed_patch"))
            found[group, token, "positional_bias", layer] = bias
            found[group, token, "content_dependence", layer] = content
        return found

    def metrics(
        self, primary_layers: tuple[int, ...], *, by_head: Collection[str] = ()
    ) -> dict[str, float]:
        """Run-level values by name `group/token/measure`.

        The mean over images and queries comes first, then that over the heads of the primary
        layers; `/final_block` is the same of the last layer. Of the groups `by_head` follow
        `/head_max` and `/head_deviation`, the mean over primary layers of the largest head and of
        the deviation over heads, and each layer and head as `name@LAYER.HEAD`. The contrasts are a
        token's value minus that of patch queries, of heads in which both have one. What has no
        value at all is left out;
        `group/token/undefined` is the share of a token's values that are.
        """
        series: dict[tuple[str, str, str], dict[int, list[float]]] = defaultdict(dict)
        for (group, token, measure, layer), heads in self.means().items():
            series[group, token, measure][layer] = heads
        final = max((layer for layers in series.values() for layer in layers), default=0)
        found: dict[str, float] = {}
        for (group, token, measure), layers in series.items():
            name = f"{group}/{token}/{measure}"
            found |= {
                name + suffix: value
                for suffix, value in _summaries(layers, primary_layers, final).items()
                if group in by_head or suffix in ("", "/final_block")
            }
            if group in by_head:
                found |= {
                    f"{name}@{layer}.{head}": value
                    for layer, heads in layers.items()
                    for head, value in enumerate(heads, start=1)
                    if not math.isnan(value)
                }
        for (group, token, measure), layers in series.items():
            of_patches = series.get((group, "patch", measure))
            if token in CONTRASTS and of_patches:
                differences = {
                    layer: [
                        one - other for one, other in zip(heads, of_patches[layer], strict=True)
                    ]
                    for layer, heads in layers.items()
                }
                summaries = _summaries(differences, primary_layers, final)
                found |= {
                    f"{group}/{CONTRASTS[token]}/{measure}{suffix}": summaries[suffix]
                    for suffix in ("", "/final_block")
                    if suffix in summaries
                }
        known: Counter[tuple[str, str]] = Counter()
        for (group, token, _, _), (count, _) in self.values.items():
            known[group, token] += int(count.sum())
        for (group, token), number in self.undefined.items():
            found[f"{group}/{token}/undefined"] = number / (number + known[group, token])
        found["globality/undefined"] = float(self.undefined.total())
        return found


def _summed(sums: Mapping[Key, Tensor], world: World) -> dict[Key, Tensor]:
    """Sums over workers, each of which may lack some, in one all-reduce."""
    shapes: dict[Key, torch.Size] = {}
    for one in world.of_each({place: part.shape for place, part in sums.items()}):
        shapes |= one
    if not shapes:
        return {}
    parts = [
        sums[place].flatten()
        if place in sums
        else torch.zeros(shape.numel(), dtype=torch.float64, device=world.device)
        for place, shape in shapes.items()
    ]
    flat = world.sum(torch.cat(parts))
    return {
        place: part.view(shape)
        for (place, shape), part in zip(
            shapes.items(), flat.split([shape.numel() for shape in shapes.values()]), strict=True
        )
    }


def map_sums(maps_BHQN: Tensor, entropies_BHQ: Tensor) -> Tensor:
    """Sum over images of maps, their number and the sum of their entropies, [H, Q, N + 2] float64.

    Entropies are in nats; where they are NaN there is no map.
    """
    known = ~entropies_BHQ.isnan()
    if not known.all():
        maps_BHQN = maps_BHQN.where(known[..., None], 0.0)
    return torch.cat(
        [
            maps_BHQN.sum(0).double(),
            known.double().sum(0)[..., None],
            entropies_BHQ.double().nansum(0)[..., None],
        ],
        dim=-1,
    )


def _of_mean_map(sums: Tensor, *, own: bool) -> tuple[list[float], list[float]]:
    """Positional bias and content dependence by head, means over queries; see `Accumulator.maps`.

    With `own` the query is a patch, which its map leaves out.
    """
    patches = sums.shape[-1] - 2
    counted = patches - own
    total, count, entropies = sums[..., :patches], sums[..., -2], sums[..., -1]
    count = torch.where(count > 0, count, torch.nan)
    mean_map, mean_entropy = total / count[..., None], entropies / count
    if counted < 2:
        nothing = [math.nan] * len(sums)
        return nothing, nothing
    bias = positional_bias(mean_map, counted).nanmean(-1)
    content = content_dependence(mean_map, mean_entropy, counted).nanmean(-1)
    return bias.tolist(), content.tolist()


def _summaries(
    by_layer: Mapping[int, list[float]], primary: tuple[int, ...], final: int
) -> dict[str, float]:
    """Summary values by suffix, of values by layer (0: the network as a whole) and head."""
    found = {}
    for suffix, layers in chosen_layers(by_layer, primary, final).items():
        known = [value for layer in layers for value in _known(by_layer.get(layer, []))]
        if known:
            found[suffix] = _mean(known)
    if set(by_layer) == {0}:
        return found
    several = [known for layer in primary if len(known := _known(by_layer.get(layer, []))) > 1]
    if several:
        found["/head_max"] = _mean([max(known) for known in several])
        deviations = [torch.tensor(known, dtype=torch.float64).std().item() for known in several]
        found["/head_deviation"] = _mean(deviations)
    return found


def _known(values: list[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
