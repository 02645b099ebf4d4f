"""One update of student, teacher and centers from the crops of a batch (Caron et al. 2021, alg. 1).

The teacher sees all global crops first, so that targets are made from the whole global batch; then
the student goes forward and backward part by part. Center, teacher and schedules move once.

Shapes: B images of this worker, m of a part of them, K prototypes. Rows are in order of view, then
image.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainers.config import TrainConfig
from trainers.data.augment import Views, normalize
from trainers.method.losses import koleo
from trainers.method.optimizer import clip_gradients, set_schedule
from trainers.method.schedules import cosine, linear, warmup_cosine
from trainers.method.site import Head, Seen, Site, Targets, hides_patches, sites
from trainers.method.targets import make_targets
from trainers.method.teacher import momentum_at, move_teacher
from trainers.model.network import Network
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
    patch_temperature: float
    """of sites with a row for each patch"""


def schedules(config: TrainConfig, step: int) -> Schedules:
    """The scheduled values of the update that leads from `step` to `step + 1`."""
    optimizer, targets = config.optimizer, config.targets
    temperature = patch_temperature = config.loss.student_temperature
    if targets.sharpening:
        length = targets.temperature_warmup_steps
        temperature = linear(step, length, targets.temperature_start, targets.temperature)
        patch_temperature = temperature
        if targets.patch_temperature:
            start, end = targets.patch_temperature_start, targets.patch_temperature
            patch_temperature = linear(step, length, start, end)
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
        patch_temperature=patch_temperature,
    )


def is_trained(config: TrainConfig) -> bool:
    """Whether there is any loss at all."""
    return bool(sites(config.loss)) or config.loss.labels > 0 or config.loss.koleo > 0


def needs_patches(config: TrainConfig) -> bool:
    """Whether any loss looks at patch tokens of the last block."""
    without_cls = config.loss.koleo > 0 and not config.model.cls
    return without_cls or any(site.reads_patches for site in sites(config.loss).values())


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
            for parameter in state.student.last_layer:
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
    step = _Step.of(state, batch, config, world)
    with torch.no_grad():
        targets, centers = step.targets(pieces, values)
    total = torch.zeros((), device=world.device)
    sums: dict[str, Tensor] = {}
    for piece, piece_targets in zip(pieces, targets, strict=True):
        share = len(piece) / images
        loss, parts = step.loss(piece, piece_targets)
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
            global_views=draw(range(first_local), "student", hides_patches(config.loss)),
            local_views=draw(
                range(first_local, first_local + augment.local_crops), "student", False
            ),
        )


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One step's forward passes, part by part; `piece`, int64 [m], are the images of a part."""

    state: TrainState
    batch: Batch
    config: TrainConfig
    world: World
    sites: Mapping[str, Site]
    draws: _Draws

    @classmethod
    def of(cls, state: TrainState, batch: Batch, config: TrainConfig, world: World) -> "_Step":
        return cls(
            state=state,
            batch=batch,
            config=config,
            world=world,
            sites=sites(config.loss),
            draws=_Draws.of(state, batch, config),
        )

    def targets(
        self, pieces: list[Tensor], values: Schedules
    ) -> tuple[list[dict[str, Targets]], dict[str, Tensor]]:
        """Targets of each part by site, made over the whole global batch, and the next centers."""
        logits: dict[str, list[Tensor]] = {name: [] for name in self.sites}
        kept: dict[str, list[Tensor | None]] = {name: [] for name in self.sites}
        teacher = self.state.teacher
        for piece in pieces if self.sites else []:
            seen = self._seen(teacher, piece, is_global=True)
            for name, site in self.sites.items():
                logits[name].append(self._head(teacher, site)(site.rows(seen)))
                kept[name].append(site.keep(seen))
        targets: list[dict[str, Targets]] = [{} for _ in pieces]
        centers = {}
        for name, parts in logits.items():
            each_patch = self.sites[name].each_patch
            made, centers[name] = make_targets(
                torch.cat(parts),
                self.state.centers[name],
                values.patch_temperature if each_patch else values.temperature,
                self.config.targets,
                self.world,
            )
            rows = made.split([len(part) for part in parts])
            for number, found in enumerate(targets):
                found[name] = Targets(rows=rows[number], kept=kept[name][number])
        return targets, centers

    def loss(
        self, piece: Tensor, targets: Mapping[str, Targets]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss of a part, a scalar with gradients, and its parts by metric name."""
        student, config = self.state.student, self.config.loss
        seen = [self._seen(student, piece, is_global=True)]
        if len(self.batch.views.local_crops):
            seen.append(self._seen(student, piece, is_global=False))
        total = torch.zeros((), device=self.world.device)
        parts: dict[str, Tensor] = {}
        for name, site in self.sites.items():
            loss = site.loss(targets[name], seen, self._head(student, site))
            entropy = site.target_entropy(targets[name], seen)
            total = total + site.weight * loss
            parts[f"loss/{name}"] = loss
            parts[f"loss/{name}_target_entropy"] = entropy
            parts[f"loss/{name}_kl"] = loss.detach() - entropy
        if config.labels:
            assert self.batch.labels is not None
            with self._autocast():
                scores = student.classifier(torch.cat([one.features.cls for one in seen])).float()
            labels = self.batch.labels[piece].repeat(len(scores) // len(piece))
            parts["loss/labels"] = functional.cross_entropy(scores, labels)
            parts["loss/labels_top1"] = (scores.argmax(1) == labels).float().mean()
            total = total + config.labels * parts["loss/labels"]
        if config.koleo:
            each = seen[0].features.image.chunk(self.config.augment.global_crops)
            spread = [koleo(self.world.gather_with_gradient(view)) for view in each]
            parts["loss/koleo"] = torch.stack(spread).sum()
            total = total + config.koleo * parts["loss/koleo"]
        return total, parts

    def _seen(self, network: Network, piece: Tensor, *, is_global: bool) -> Seen:
        """What a network makes of all global or all local views of a part."""
        views, images = self.batch.views, len(self.batch.identifiers)
        crops = views.global_crops if is_global else views.local_crops
        draws = of_student = self.draws.global_views if is_global else self.draws.local_views
        if network is self.state.teacher:
            draws = self.draws.teacher
        hidden = of_student.mask
        if len(piece) < images:
            first = torch.arange(len(crops) // images, device=piece.device)[:, None] * images
            rows = (first + piece).flatten()
            crops, draws = crops[rows], draws.rows(rows)
            hidden = None if hidden is None else hidden[rows]
        only_first = not needs_patches(self.config)
        with self._autocast():
            features = network(normalize(crops), draws, only_first=only_first)
        return Seen(features=features, images=len(piece), hidden=hidden)

    def _head(self, network: Network, site: Site) -> Head:
        head = network.head_of(each_patch=site.each_patch)

        def logits(rows: Tensor) -> Tensor:
            with self._autocast():
                return head(rows, self.world)

        return logits

    def _autocast(self) -> torch.autocast:
        return self.world.autocast(self.config.compute.precision)
