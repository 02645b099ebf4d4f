"""One measurement of a ViT on a set of images: every number, and maps of a few images to show."""

import dataclasses
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.data.augment import evaluation_crops
from trainers.data.image_set import ImageSet
from trainers.errors import InputError
from trainers.globality import flows, geometry, replaced, sinks
from trainers.globality.alignment import Alignment
from trainers.globality.causal import LEAST_RELIANCE, PROBES, REACH_QUERIES
from trainers.globality.cls_maps import QueryMaps
from trainers.globality.descriptions import BY_LAYER
from trainers.globality.instruments import Instruments, Observable, Settings, of_first
from trainers.globality.measurable import Measurable
from trainers.globality.rollout import RolloutStatistics, rollout
from trainers.globality.statistics import DISTANCE
from trainers.grid import Grid
from trainers.model.vit import Features, Layer, Observer
from trainers.randomness.forward_draws import ForwardDraws, joined
from trainers.system.numbers import measuring

SHOWN = 8
"""Images whose maps are kept, at most."""

ENOUGH = 2000
"""Images from which the bias of positional bias is small (docs/metrics.md)."""

DESCRIPTIONS = {
    **flows.DESCRIPTIONS,
    **sinks.DESCRIPTIONS,
    **geometry.DESCRIPTIONS,
    **replaced.DESCRIPTIONS,
    "/".join(("globality", *DISTANCE)): "mean distance of the attention of patches to patches, to "
    "themselves 0 (Park 2023); patches",
}
"""Metrics that only a measured network has, and no run of a study."""

OBSERVED, BACKWARD = 5, 4
"""What a pass whose attention is measured, and one backward, cost in plain passes: on two cores,
ViT-Ti and ViT-S, 224 pixels."""

Progress = Callable[[int, int], None]
"""called with the work done and all of it, in passes of one image; may raise to end it"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which images are measured, how large, and how."""

    places: Tensor
    """int64 [M], in the order in which they are taken"""
    part: str
    """what part of the data set they are, in words"""
    size: int
    grid: Grid
    primary: tuple[int, ...]
    """primary layer set, blocks counted from 1"""
    batch_size: int
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class Maps:
    """What one query looks at in a few images; maps are float32 and sum to 1."""

    query: str
    images: Tensor
    """their names, int64 [n]"""
    pixels: Tensor
    """uint8 [n, 3, S, S]"""
    attention: list[Tensor]
    """of each layer [n, H, N]"""
    rollout: Tensor
    """[n, N]"""
    influence: Tensor | None
    """[n, N], if it was measured"""
    norms: list[Tensor]
    """of the patch tokens after each block [n, N]"""
    components: Tensor
    """of the network's patch tokens, `geometry.principal_components`, [n, 3, N]"""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What came out."""

    metrics: dict[str, float]
    """by name, single layers and heads as `name@LAYER.HEAD`"""
    maps: Maps


def choose(
    images: ImageSet, limit: int, *, trained_on_them: bool = False
) -> tuple[Tensor, str]:  # fmt: skip
    """The places of up to `limit` images in an order keyed by their names, and what they are.

    Held-out images where the data set declares some or the network was trained on the others,
    otherwise all. The same images for every network.
    """
    if images.declared or trained_on_them:
        places, part = images.test, "held-out images"
    else:
        places, part = torch.arange(len(images)), "images"
    return images.shuffled(places)[:limit], f"{len(places)} {part}"


def check_layers(layers: Collection[int], depth: int) -> tuple[int, ...]:
    """`layers` as a primary layer set. Raises InputError when they are not blocks of the model."""
    wrong = sorted(layer for layer in layers if not 1 <= layer <= depth)
    if wrong or not layers:
        shown = ", ".join(map(str, wrong)) or "none"
        raise InputError(f"layers must be blocks 1 to {depth} of this model: {shown}")
    return tuple(sorted(set(layers)))


def bias_of_positional_bias(patches: int, images: int) -> float:
    """About how much too large positional bias may be, and content dependence too small.

    ``(N - 1) / (2 M ln N)``, the bias of the entropy of M draws from N, for maps with all mass
    on one patch; smoother maps have less.
    """
    return (patches - 1) / (2 * images * math.log(patches)) if patches > 1 else math.nan


@measuring()
def measure(
    model: Measurable,
    images: ImageSet,
    plan: Plan,
    device: torch.device,
    progress: Progress = lambda done, total: None,
) -> Measurement:
    """Everything, with `model` moved to `device`. In float32 whatever the device."""
    network = model.network.to(device).eval()
    causal = min(plan.settings.causal_images, len(plan.places))
    shown = min(SHOWN, len(plan.places))
    counted = _Counted(network, progress)
    instruments = Instruments(
        counted,
        plan.grid,
        has_cls=model.has_cls,
        registers=model.registers,
        fixed_patch=model.fixed_patch(plan.grid),
        settings=dataclasses.replace(plan.settings, distances=True),
        device=device,
    )
    tokens = instruments.tokens
    alike, shape, others = Alignment(tokens), geometry.Geometry(tokens), replaced.Replaced(tokens)
    counted.total = _work(plan, instruments, causal, shown)
    counted.total += others.passes(len(plan.places), model.depth)
    written = sinks.Sinks(tokens, memory=plan.settings.memory)
    watching = of_first(None, instruments.observer(), alike, shape, written, others)
    first: list[tuple[Tensor, Tensor, ForwardDraws]] = []
    with torch.no_grad():
        for batch in plan.places.split(plan.batch_size):
            pixels = evaluation_crops(
                images.pixels(batch, device), images.aspect(batch), plan.size, device
            )
            crops = standardised(pixels, model)
            identifiers = images.identifiers[batch].to(device)
            draws = model.draws(identifiers, plan.grid)
            others.see(crops, draws, counted(crops, draws, observe=watching))
            instruments.see(crops, draws, identifiers)
            if sum(len(kept) for kept, _, _ in first) < shown:
                first.append((pixels, crops, draws))
        total = instruments.total()
        total = total.merge(flows.flows(total, tokens)).merge(shape.total).merge(written.total)
        pixels, crops = (torch.cat([part[i] for part in first])[:shown] for i in (0, 1))  # type: ignore[misc]
        draws = joined([part[2] for part in first]).rows(torch.arange(shown, device=device))
        names = images.identifiers[plan.places[:shown]]
        maps = _maps(counted, instruments, names, pixels, crops, draws)
    groups = (*BY_LAYER, flows.GROUP, geometry.GROUP, sinks.GROUP)
    metrics = total.metrics(plan.primary, by_head=groups)
    metrics |= alike.metrics() | others.metrics(counted, model.blocks)
    return Measurement(metrics=metrics, maps=maps)


def _work(plan: Plan, instruments: Instruments, causal: int, shown: int) -> int:
    """All the work, as `_Counted` counts it."""
    total = OBSERVED * (3 * len(plan.places) + shown)
    if causal > 1:
        kinds = instruments.tokens.rows()
        queries = sum(
            min(len(places), REACH_QUERIES) if token == "patch" else len(places)
            for token, places, _ in kinds
        )
        passes = len(kinds) + 1 + instruments.tokens.patches
        total += causal * (passes + BACKWARD * PROBES * queries)
    return total


class _Counted:
    """A network that says how much work has been done with it."""

    def __init__(self, network: Observable, progress: Progress) -> None:
        self.network, self.progress = network, progress
        self.done = self.total = 0

    def __call__(
        self, images: Tensor, draws: ForwardDraws | None = None, *, observe: Observer | None = None
    ) -> Features:
        features = self.network(images, draws, observe=observe)
        if features.tokens.requires_grad:
            features.tokens.register_hook(lambda _: self._count(BACKWARD * len(images)))
        self._count(len(images) * (1 if observe is None else OBSERVED))
        return features

    def _count(self, more: int) -> None:
        self.done += more
        self.progress(self.done, self.total)


def _maps(
    network: Observable,
    instruments: Instruments,
    names: Tensor,
    pixels: Tensor,
    crops: Tensor,
    draws: ForwardDraws,
) -> Maps:
    """Of [CLS], or without one of the first register, or without any of a patch in the middle."""
    tokens, settings = instruments.tokens, instruments.settings
    row, query, name = 0, 0, "[CLS]" if tokens.has_cls else "the first register"
    if not tokens.first:
        # The one nearest to the middle of those that are measured.
        middle = tokens.grid[0] // 2 * tokens.grid[1] + tokens.grid[1] // 2
        row, name = int((tokens.patch_queries - middle).abs().argmin()), "the middle patch"
        query = int(tokens.patch_queries[row])
        row += tokens.fixed_patch is not None
    asked = torch.tensor([query], device=crops.device)
    attention = QueryMaps(query, tokens.first)
    keeper = RolloutStatistics(tokens, memory=settings.memory)
    norms: list[Tensor] = []

    def keep_norms(layer: Layer) -> None:
        norms.append(layer.tokens[:, tokens.first :].float().norm(dim=-1).cpu())

    features = network(crops, draws, observe=of_first(None, attention, keeper, keep_norms))
    rolled = rollout(keeper.kept, asked, settings.memory, keeper.allowed)[:, 0, tokens.first :]
    if not tokens.first:
        # As in what is measured, the query itself does not count.
        rolled[:, query] = 0
    keeper.kept = []
    moved = None
    if instruments.influence is not None:
        moved = instruments.influence[: len(crops), row].clone()
        if not tokens.first:
            moved[:, query] = 0
        reliance = moved.sum(-1, keepdim=True)
        moved = (moved / torch.where(reliance < LEAST_RELIANCE, torch.nan, reliance)).cpu()
    return Maps(
        query=name,
        images=names.cpu(),
        pixels=pixels.cpu(),
        attention=attention.kept,
        rollout=(rolled / rolled.sum(-1, keepdim=True)).cpu(),
        influence=moved,
        norms=norms,
        components=geometry.principal_components(features.tokens[:, tokens.first :]),
    )


def standardised(pixels: Tensor, model: Measurable) -> Tensor:
    """uint8 pixels as float32, as the model wants them."""
    mean = torch.tensor(model.mean, device=pixels.device)[:, None, None]
    deviation = torch.tensor(model.deviation, device=pixels.device)[:, None, None]
    return pixels.to(torch.float32).mul_(1 / (255 * deviation)).sub_(mean / deviation)
