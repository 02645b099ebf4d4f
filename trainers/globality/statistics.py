"""Attention statistics in one pass, without ever holding the whole attention of a layer.

An `AttentionStatistics` is handed each layer as the network computes it. The rows of [CLS],
registers and one fixed patch cost O(T) each; rows of patch queries are made in parts of a bounded
size, reduced to numbers at once, and forgotten. All in float32.

Shapes: B images, H heads, T = P + N tokens (P first ones: [CLS] if there is one, then registers),
N patches, Q queries, K features of a head.
"""

import math

import torch
from torch import Tensor

from trainers.globality.accumulator import Accumulator, map_sums
from trainers.globality.by_image import ImageSums
from trainers.globality.functionals import (
    LEAST_MASS,
    beyond_uniform,
    conditional,
    coverage,
    distance_ratio,
    entropy,
    gyration,
    locality,
    mean_distance,
    median,
    mutual_information,
    nearest_distance_ratio,
    outlier_share,
    patch_distances,
    sink_concentration,
)
from trainers.globality.tokens import Tokens
from trainers.grid import Grid
from trainers.model.attention import within
from trainers.model.vit import Layer

BYTES = 4
"""of a float32"""


DISTANCE = ("patch", "attention_distance")
"""token and measure of mean attention distance"""


class AttentionStatistics:
    """An observer of layers: adds the statistics of their attention to `total`.

    `memory` bounds the attention weights that are held at once, MiB (at least one query of one
    image). `group` is what they are reported as. With `norm_weighted`, attention times the norm of
    what a head writes for a key (Kobayashi et al. 2020) is measured too, as a group of that name.
    With `only_mean_maps`, nothing but what positional bias and content dependence need.
    `of_images` keeps values of each image. `distances`: mean attention distance too, which no run
    of a study records.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        memory: float,
        group: str = "globality",
        distances: bool = False,
        norm_weighted: bool = False,
        only_mean_maps: bool = False,
        of_images: ImageSums | None = None,
    ) -> None:
        self.tokens = tokens
        self.memory = memory
        self.group = group
        self.distances = distances
        self.norm_weighted = norm_weighted
        self.only_mean_maps = only_mean_maps
        self.total = Accumulator(of_images=of_images)

    def __call__(self, layer: Layer) -> None:
        """Take one layer of a batch."""
        # Under the caller's autocast the products would be made in bfloat16.
        with torch.autocast(layer.queries.device.type, enabled=False):
            for images in self._parts(layer):
                self._see(layer, images)
            if not self.only_mean_maps:
                self._see_tokens(layer)

    def _parts(self, layer: Layer) -> list[range]:
        """Images that are looked at together: as many as have all their queries in memory."""
        images, heads = layer.queries.shape[:2]
        one = heads * len(self.tokens.patch_queries) * self.tokens.count * BYTES / 2**20
        step = max(1, int(self.memory / one))
        return [range(images)[start : start + step] for start in range(0, images, step)]

    def _see(self, layer: Layer, images: range) -> None:
        rows = slice(images.start, images.stop)
        queries, keys_KT = layer.queries[rows].float(), layer.keys[rows].float().transpose(2, 3)
        queries = queries * queries.shape[-1] ** -0.5
        norms_BHT = layer.values[rows].float().norm(dim=-1)
        written_BHT = None
        if self.norm_weighted:
            written_BHT = written_norms(layer.values[rows].float(), layer.projection.float())
        one = len(queries) * queries.shape[1] * self.tokens.count * BYTES / 2**20
        first, allowed = self.tokens.first, layer.allowed
        scores = queries[:, :, :first] @ keys_KT
        scores = within(scores, None if allowed is None else allowed[:first])
        received = torch.softmax(scores, dim=-1).sum(2)
        for token, places, patches in self.tokens.rows():
            plain = _Rows(self, self.group, layer.number, token, images)
            weighted = _Rows(self, "norm_weighted", layer.number, token, images)
            for part in torch.arange(len(places), device=places.device).split(
                max(1, int(self.memory / one))
            ):
                scores = queries.index_select(2, places[part]) @ keys_KT
                scores = within(scores, None if allowed is None else allowed[places[part]])
                attention_BHQT = torch.softmax(scores, dim=-1)
                own = None if patches is None else patches[part]
                plain.see(attention_BHQT, places[part], own)
                if written_BHT is not None:
                    moved = attention_BHQT * written_BHT[:, :, None]
                    weighted.see(moved / moved.sum(-1, keepdim=True), places[part], own)
            plain.finish(patches)
            if written_BHT is not None:
                weighted.finish(patches)
            if token == "patch" and not self.only_mean_maps:
                # A sample of patch queries stands for all of them.
                all_received = received + plain.received * (self.tokens.patches / len(places))
                self._see_sinks(layer.number, all_received, norms_BHT, images)

    def _see_sinks(
        self, layer: int, received_BHT: Tensor, norms_BHT: Tensor, images: range
    ) -> None:
        sink = received_BHT.argmax(-1, keepdim=True)
        value = norms_BHT.gather(-1, sink)[..., 0] / median(norms_BHT)
        for name, found in (
            ("concentration", sink_concentration(received_BHT)),
            ("value_norm", value),
        ):
            self.total.add((self.group, "sink", name, layer), found[..., None], images)

    def _see_tokens(self, layer: Layer) -> None:
        norms = layer.tokens[:, self.tokens.first :].float().norm(dim=-1)
        shares = outlier_share(norms)[:, None, None]
        self.total.add((self.group, "sink", "outlier_share", layer.number), shares)
        if self.tokens.has_cls:
            normalised = layer.normalised.float()
            patches = normalised[:, self.tokens.first :].mean(1)
            cosine = torch.cosine_similarity(normalised[:, 0], patches, dim=-1)
            place = (self.group, "cls", "patch_cosine", layer.number)
            self.total.add(place, cosine[:, None, None])


class _Rows:
    """The rows of one kind of query of some images, which come part by part."""

    def __init__(
        self, owner: AttentionStatistics, group: str, layer: int, token: str, images: range
    ) -> None:
        self.owner, self.tokens = owner, owner.tokens
        self.place, self.layer, self.images = (group, token), layer, images
        self.sums: list[Tensor] = []
        self.distance: Tensor | float = 0.0
        self.baseline: Tensor | float = 0.0
        self.row_entropy: Tensor | float = 0.0
        self.mean_map: Tensor | float = 0.0
        self.received: Tensor | float = 0.0

    def see(self, weights_BHQT: Tensor, places: Tensor, patches: Tensor | None) -> None:
        """Take rows that sum to 1, of the queries at the tokens `places`."""
        grid = self.tokens.grid
        maps, mass = conditional(weights_BHQT, patches, self.tokens.first)
        measures = {"entropy": entropy(maps, patches)}
        counted = maps.shape[-1] - (patches is not None)
        nats = measures["entropy"] * (math.log(counted) if counted > 1 else 1)
        self.sums.append(map_sums(maps, nats))
        self.owner.total.keep_maps((*self.place, self.layer), self.images, maps, nats)
        if self.owner.only_mean_maps:
            return
        own = weights_BHQT.gather(-1, places[:, None].expand(*weights_BHQT.shape[:-1], 1))[..., 0]
        measures |= spread_of_maps(maps, grid, patches)
        measures |= {"patch_mass": mass, **self._masses(weights_BHQT, own)}
        if patches is not None:
            distances = mean_distance(maps, grid, patches)
            measures["distance"] = distance_ratio(distances, grid, patches)
            measures["distance_patches"] = distances
            if self.place[1] == "patch":
                self.received = self.received + weights_BHQT.sum(2)
                self._see_set(maps, mass, own, nats, distances, patches)
        for name, values in measures.items():
            self.owner.total.add((*self.place, name, self.layer), values, self.images)

    def _masses(self, weights_BHQT: Tensor, own: Tensor) -> dict[str, Tensor]:
        """Attention to oneself, [CLS] and registers, against uniform."""
        tokens, token = self.tokens, self.place[1]
        found = {"self_mass": beyond_uniform(own, tokens.count)}
        if tokens.has_cls and token != "cls":
            found["cls_mass"] = beyond_uniform(weights_BHQT[..., 0], tokens.count)
        if tokens.registers and token != "register":
            registers = weights_BHQT[..., int(tokens.has_cls) : tokens.first].sum(-1)
            found["register_mass"] = beyond_uniform(registers, tokens.count, tokens.registers)
        return found

    def _see_set(
        self,
        maps: Tensor,
        mass: Tensor,
        own: Tensor,
        nats: Tensor,
        distances: Tensor,
        patches: Tensor,
    ) -> None:
        """Sums over queries for measures of them all: the query's own patch counts too.

        Such a map is the own patch with share λ, or else the map without it.
        """
        # Without a map the own patch alone is left, and without that neither: then nothing is
        # known of the set.
        everything = own + torch.where(mass < LEAST_MASS, 0.0, mass)
        share = own / torch.where(everything < LEAST_MASS, torch.nan, everything)
        if nats.isnan().any():
            maps = maps.nan_to_num()
        nats, distances = nats.nan_to_num(), distances.nan_to_num()
        others = 1 - share
        baseline = patch_distances(self.tokens.grid, self.tokens.patch_queries).mean(0)
        self.distance = self.distance + (others * distances).sum(-1)
        own_baseline = share * baseline[patches]
        self.baseline = self.baseline + (own_baseline + others * (maps @ baseline)).sum(-1)
        mixing = torch.special.entr(share) + torch.special.entr(others)
        self.row_entropy = self.row_entropy + (mixing + others * nats).sum(-1)
        column = (others[..., None, :] @ maps)[..., 0, :]
        self.mean_map = self.mean_map + column.index_add(-1, patches, share)

    def finish(self, patches: Tensor | None) -> None:
        """Add what takes all parts to the accumulator."""
        total = self.owner.total
        total.add_map_sums((*self.place, self.layer), torch.cat(self.sums, dim=1))
        if self.owner.only_mean_maps or self.place[1] != "patch":
            return
        assert patches is not None
        assert isinstance(self.mean_map, Tensor)
        assert isinstance(self.row_entropy, Tensor)
        assert isinstance(self.distance, Tensor)
        assert isinstance(self.baseline, Tensor)
        queries = len(patches)
        found = {
            "locality": locality(self.distance, self.baseline),
            "mutual_information": mutual_information(
                self.mean_map / queries, self.row_entropy / queries, queries
            ),
        }
        for name, values in found.items():
            total.add((*self.place, name, self.layer), values[..., None], self.images)
        if self.owner.distances and self.place[0] == self.owner.group:
            place = (self.owner.group, *DISTANCE, self.layer)
            total.add(place, (self.distance / queries)[..., None], self.images)


def of_maps(maps: Tensor, grid: Grid, patches: Tensor | None) -> dict[str, Tensor]:
    """Measures of maps [..., Q, N] alone, whatever they were made from, [..., Q] each."""
    found = {"entropy": entropy(maps, patches), **spread_of_maps(maps, grid, patches)}
    if patches is not None:
        found["distance_patches"] = mean_distance(maps, grid, patches)
        found["distance"] = distance_ratio(found["distance_patches"], grid, patches)
    return found


def spread_of_maps(maps: Tensor, grid: Grid, patches: Tensor | None) -> dict[str, Tensor]:
    """Those of them that need no query's position and no logarithm."""
    most, nearly_all = coverage(maps, (0.6, 0.9), patches)
    return {
        "gyration": gyration(maps, grid, patches),
        "coverage": most,
        "coverage_90": nearly_all,
        "nearest_distance": nearest_distance_ratio(maps, grid, patches),
    }


def written_norms(values_BHTK: Tensor, projection_HKD: Tensor) -> Tensor:
    """Norm of what each head writes for each token, ``‖v W_O‖``, [B, H, T] (Kobayashi 2020)."""
    # As a form of K × K: K is much smaller than D.
    form = projection_HKD @ projection_HKD.transpose(1, 2)
    return ((values_BHTK @ form) * values_BHTK).sum(-1).clamp(min=0).sqrt()
