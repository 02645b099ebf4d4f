"""One update of student, teacher and centers from the crops of a batch (Caron et al. 2021, alg. 1).

The teacher sees all global crops first, so that targets are made from the whole global batch; then
the student goes forward and backward part by part. Center, teacher and schedules move once.

Shapes: B images of this worker, m of a part of them, G global and V - G local views, N patches of a
global crop, K prototypes. Rows are in order of view, then image.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainers.config import TrainConfig
from trainers.data.augment import Views, normalize
from trainers.method.losses import (
    dense_distillation,
    distillation,
    entropy,
    koleo,
    masked_distillation,
    masked_mean,
)
from trainers.method.optimizer import clip_gradients, set_schedule
from trainers.method.schedules import cosine, linear, warmup_cosine
from trainers.method.sites import EACH_PATCH, feature_site, needs_patches, read_out, sites
from trainers.method.targets import make_targets
from trainers.method.teacher import momentum_at, move_teacher
from trainers.model.network import Network
from trainers.model.vit import Features
from trainers.randomness.forward_draws import (
    ForwardDraws,
    Keyed,
    drop_path,
    keyed,
    masks,
    wandering_cls,
)
from trainers.system.world import World
from trainers.training.state import TrainState


@dataclass(frozen=True, kw_only=True)
class Batch:
    """This worker's images of a step."""

    views: Views
    identifiers: Tensor
    """int64 [B]"""
    epochs: Tensor
    """int64 [B]"""
    labels: Tensor | None
    """int64 [B]"""


@dataclass(frozen=True, kw_only=True)
class Update:
    """What one update did."""

    loss: float
    """weighted sum of the losses, mean over all workers"""
    parts: dict[str, Tensor]
    """each loss by metric name, scalars, means over this worker's images"""
    gradient_norm: float
    """norm of all gradients together before clipping"""
    learning_rate: float
    failure: str
    """what was not finite; nothing has moved then"""


@dataclass(frozen=True, kw_only=True)
class Schedules:
    """Values of everything that follows a schedule, at one step."""

    learning_rate: float
    weight_decay: float
    momentum: float
    temperature: float


def schedules(config: TrainConfig, step: int) -> Schedules:
    """The scheduled values of the update that leads from `step` to `step + 1`."""
    optimizer, targets = config.optimizer, config.targets
    temperature = config.loss.student_temperature
    if targets.sharpening:
        temperature = linear(
            step,
            targets.temperature_warmup_steps,
            targets.temperature_start,
            targets.temperature,
        )
    return Schedules(
        learning_rate=warmup_cosine(
            step,
            config.steps,
            optimizer.warmup_steps,
            optimizer.learning_rate,
            optimizer.learning_rate_end,
        ),
        weight_decay=cosine(step, config.steps, optimizer.weight_decay, optimizer.weight_decay_end),
        momentum=momentum_at(step, config.steps, config.teacher),
        temperature=temperature,
    )


def is_trained(config: TrainConfig) -> bool:
    """Whether there is any loss at all."""
    return bool(sites(config.loss)) or config.loss.labels > 0 or config.loss.koleo > 0


def update(state: TrainState, batch: Batch, config: TrainConfig, world: World) -> Update:
    """Move `state` by one step; where a loss or gradient is not finite, leave it as it was."""
    values = schedules(config, state.step)
    if not is_trained(config):
        state.step += 1
        return Update(loss=0.0, parts={}, gradient_norm=0.0, learning_rate=0.0, failure="")
    state.optimizer.zero_grad()
    total, parts, centers = backward(state, batch, values, config, world)
    parameters = list(state.student.parameters())
    world.average_gradients(parameters)
    norm = clip_gradients(parameters, config.optimizer.clip_norm, world)
    loss, gradient_norm = torch.stack([world.sum(total) / world.size, norm]).tolist()
    failure = ""
    if not math.isfinite(loss):
        failure = f"loss is {loss}"
    elif not math.isfinite(gradient_norm):
        failure = f"gradient norm is {gradient_norm}"
    if not failure:
        if state.step < config.optimizer.freeze_last_layer_steps:
            for parameter in state.student.head.last_layer:
                parameter.grad = None
        set_schedule(state.optimizer, values.learning_rate, values.weight_decay)
        state.optimizer.step()
        move_teacher(state.teacher, state.student, values.momentum)
        state.centers = centers
        state.step += 1
    return Update(
        loss=loss,
        parts=parts,
        gradient_norm=gradient_norm,
        learning_rate=values.learning_rate,
        failure=failure,
    )


def backward(
    state: TrainState, batch: Batch, values: Schedules, config: TrainConfig, world: World
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Add the gradients of the loss; returns the loss, its parts by metric name, the next centers.

    The loss and its parts are scalars without gradients, means over this worker's images.
    """
    images = len(batch.identifiers)
    pieces = list(torch.arange(images, device=world.device).tensor_split(config.compute.accumulate))
    draws = _Draws.of(state, batch, config)
    with torch.no_grad():
        targets, centers = _targets(state, batch, pieces, draws, values, config, world)
    total = torch.zeros((), device=world.device)
    sums: dict[str, Tensor] = {}
    for piece, piece_targets in zip(pieces, targets, strict=True):
        share = len(piece) / images
        loss, parts = _student_loss(state, batch, piece, draws, piece_targets, config, world)
        (loss * share).backward()
        total += loss.detach() * share
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value.detach() * share
    return total, sums, centers


@dataclass(frozen=True, kw_only=True)
class _Draws:
    """The draws of all rows of this worker, by who sees them."""

    teacher: ForwardDraws
    global_views: ForwardDraws
    local_views: ForwardDraws

    @classmethod
    def of(cls, state: TrainState, batch: Batch, config: TrainConfig) -> "_Draws":
        seed, model, augment = config.seed, config.model, config.augment
        grid = state.student.backbone.grid

        def draw(views: range, who: str, masked: bool) -> ForwardDraws:
            def source(purpose: str) -> Keyed:
                return keyed(seed, purpose, batch.identifiers, batch.epochs, views)

            student = who == "student"
            return ForwardDraws(
                keep=drop_path(source("drop path"), model) if student else None,
                mask=masks(source("mask"), config.loss, grid) if masked else None,
                cls_patch=wandering_cls(source(f"cls position/{who}"), model, grid),
            )

        first_local = augment.global_crops
        return cls(
            teacher=draw(range(first_local), "teacher", False),
            global_views=draw(range(first_local), "student", config.loss.masked > 0),
            local_views=draw(
                range(first_local, first_local + augment.local_crops), "student", False
            ),
        )


@dataclass(frozen=True, kw_only=True)
class _Targets:
    """What the student of one part is to predict."""

    by_site: dict[str, Tensor]
    """pooled sites [G, m, K], dense [G, m, N, K], masked [M, K]"""
    patch_features: Tensor | None
    """teacher patches [G, m, N, D], for matching; dense only"""


def _rows(piece: Tensor, views: int, images: int) -> Tensor:
    """Row numbers of the images of a part in each of some views."""
    first = torch.arange(views, device=piece.device)[:, None] * images
    return (first + piece).flatten()


def _passes(
    network: Network,
    crops: Tensor,
    draws: ForwardDraws,
    piece: Tensor,
    images: int,
    config: TrainConfig,
    world: World,
) -> Features:
    """Features of all views of the images of a part."""
    if len(piece) < images:
        rows = _rows(piece, len(crops) // images, images)
        crops, draws = crops[rows], draws.rows(rows)
    with world.autocast(config.compute.precision):
        return network(normalize(crops), draws, only_first=not needs_patches(config.loss))


def _targets(
    state: TrainState,
    batch: Batch,
    pieces: list[Tensor],
    draws: _Draws,
    values: Schedules,
    config: TrainConfig,
    world: World,
) -> tuple[list[_Targets], dict[str, Tensor]]:
    """Targets of each part, made over the whole global batch, and the next centers."""
    images, views = len(batch.identifiers), config.augment.global_crops
    logits: dict[str, list[Tensor]] = {site: [] for site in sites(config.loss)}
    patch_features: list[Tensor | None] = []
    for piece in pieces if logits else []:
        features = _passes(
            state.teacher, batch.views.global_crops, draws.teacher, piece, images, config, world
        )
        mask = _mask(draws, piece, views, images)
        for site, rows in logits.items():
            rows.append(_logits(state.teacher, features, site, mask, config, world))
        dense = "dense" in logits
        patch_features.append(features.patches.unflatten(0, (views, -1)) if dense else None)
    found: dict[str, tuple[Tensor, ...]] = {}
    centers = {}
    for site, rows in logits.items():
        made, centers[site] = make_targets(
            torch.cat(rows), state.centers[site], values.temperature, config.targets, world
        )
        found[site] = made.split([len(part) for part in rows])
    shapes: dict[str, tuple[int, ...]] = {}
    if "dense" in logits:
        grid = state.student.backbone.grid
        shapes["dense"] = (-1, grid[0] * grid[1])
    targets = []
    for number in range(len(pieces)):
        by_site = {}
        for site, parts in found.items():
            rows_of_site = parts[number]
            if site in shapes:
                rows_of_site = rows_of_site.unflatten(0, shapes[site])
            if site != "masked":
                rows_of_site = rows_of_site.unflatten(0, (views, -1))
            by_site[site] = rows_of_site
        own = patch_features[number] if patch_features else None
        targets.append(_Targets(by_site=by_site, patch_features=own))
    return targets, centers


def _mask(draws: _Draws, piece: Tensor, views: int, images: int) -> Tensor | None:
    if draws.global_views.mask is None:
        return None
    return draws.global_views.mask[_rows(piece, views, images)]


def _logits(
    network: Network,
    features: Features,
    site: str,
    mask: Tensor | None,
    config: TrainConfig,
    world: World,
) -> Tensor:
    """Logits of the rows of a site: one an image and view, or one a patch."""
    if site == "masked":
        assert mask is not None
        rows = features.patches[mask]
    elif site in EACH_PATCH:
        rows = features.patches.flatten(0, 1)
    else:
        rows = read_out(features, site, config.loss)
    with world.autocast(config.compute.precision):
        return network.head(rows, world)


def _student_loss(
    state: TrainState,
    batch: Batch,
    piece: Tensor,
    draws: _Draws,
    targets: _Targets,
    config: TrainConfig,
    world: World,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted loss of a part, a scalar that carries gradients; its parts by metric name."""
    images, views = len(batch.identifiers), config.augment.global_crops
    student, loss_config = state.student, config.loss
    features = [
        _passes(student, crops, drawn, piece, images, config, world)
        for crops, drawn in (
            (batch.views.global_crops, draws.global_views),
            (batch.views.local_crops, draws.local_views),
        )
        if len(crops)
    ]
    mask = _mask(draws, piece, views, images)
    total = torch.zeros((), device=world.device)
    parts: dict[str, Tensor] = {}
    for site, weight in sites(loss_config).items():
        goal = targets.by_site[site]
        loss = _site_loss(site, goal, targets, features, student, mask, len(piece), config, world)
        total = total + weight * loss
        target_entropy = (
            entropy(goal)
            if mask is None or site != "masked"
            else masked_mean(torch.special.entr(goal).sum(-1), mask)
        )
        parts[f"loss/{site}"] = loss
        parts[f"loss/{site}_target_entropy"] = target_entropy
        parts[f"loss/{site}_kl"] = loss.detach() - target_entropy
    if loss_config.labels:
        assert batch.labels is not None
        with world.autocast(config.compute.precision):
            scores = student.classifier(torch.cat([part.cls for part in features])).float()
        labels = batch.labels[piece].repeat(len(scores) // len(piece))
        parts["loss/labels"] = functional.cross_entropy(scores, labels)
        parts["loss/labels_top1"] = (scores.argmax(1) == labels).float().mean()
        total = total + loss_config.labels * parts["loss/labels"]
    if loss_config.koleo:
        each = read_out(features[0], feature_site(config), loss_config).chunk(views)
        spread = [koleo(world.gather_with_gradient(view)) for view in each]
        parts["loss/koleo"] = torch.stack(spread).mean()
        total = total + loss_config.koleo * parts["loss/koleo"]
    return total, parts


def _site_loss(
    site: str,
    goal: Tensor,
    targets: _Targets,
    features: list[Features],
    student: Network,
    mask: Tensor | None,
    images: int,
    config: TrainConfig,
    world: World,
) -> Tensor:
    temperature = config.loss.student_temperature
    if site == "masked":
        assert mask is not None
        logits = _logits(student, features[0], site, mask, config, world)
        return masked_distillation(goal, logits, mask, temperature)
    if site == "dense":
        assert targets.patch_features is not None
        groups = [
            (
                _logits(student, part, site, mask, config, world)
                .unflatten(0, (-1, part.patches.shape[1]))
                .unflatten(0, (-1, images)),
                part.patches.unflatten(0, (-1, images)),
            )
            for part in features
        ]
        return dense_distillation(goal, targets.patch_features, groups, temperature)
    rows = torch.cat([read_out(part, site, config.loss) for part in features])
    with world.autocast(config.compute.precision):
        logits = student.head(rows, world).unflatten(0, (-1, images))
    return distillation(goal, logits, temperature)
