"""One update of student, teacher and centers from the crops of a batch (Caron et al. 2021, alg. 1).

The teacher sees all global crops first, so that targets are made from the whole global batch; then
the student goes forward and backward part by part. Center, teacher and schedules move once.

Shapes: B images of this worker, m of a part of them, K prototypes. Rows are in order of view, then
image.
"""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainers.config import TrainConfig
from trainers.data.augment import Views, normalize
from trainers.method.losses import koleo
from trainers.method.optimizer import clip_gradients, set_schedule, step_where_finite
from trainers.method.schedules import cosine, linear, warmup_cosine
from trainers.method.site import Head, Seen, Site, Targets, sites
from trainers.method.targets import make_targets
from trainers.method.teacher import momentum_at, move_teacher
from trainers.model.network import Network
from trainers.model.packed import packed
from trainers.system.world import World
from trainers.training.pieces import Piece, pieces
from trainers.training.state import TrainState


@dataclass(frozen=True, kw_only=True)
class Batch:
    """This worker's images of a step."""

    views: Views
    identifiers: Tensor
    """int64 [B], on the host"""
    epochs: Tensor
    """int64 [B], on the host"""
    labels: Tensor | None
    """int64 [B]"""
    pieces: list[Piece] | None = None
    """of the images, with their draws, where they are made beforehand; else the step makes them"""

    def tensors(self) -> list[Tensor]:
        """All of it that lies on the device."""
        draws = [one for piece in self.pieces or [] for one in piece.draws]
        found = [value for part in (self.views, *draws) for value in vars(part).values()]
        return [one for one in (*found, self.labels) if one is not None]


@dataclass(frozen=True, kw_only=True)
class Update:
    """What one update did."""

    loss: float
    """weighted sum of the losses, mean over all workers"""
    parts: dict[str, Tensor]
    """each loss by metric name, scalars, means over this worker's images; entropies of targets,
    and what is made of them, only where the step logs"""
    gradient_norm: float
    """norm of all gradients together before clipping"""
    learning_rate: float
    digests: Tensor
    """int64, on the host: of the crops of each image of all workers"""
    asked_to_end: bool
    """whether any worker has been"""
    failure: str
    """what was not finite; then nothing has moved but the running moments of batch norm"""

    def losses(self, world: World) -> dict[str, float]:
        """Each loss by metric name, means over all workers; every worker must ask."""
        if not self.parts:
            return {}
        values = world.sum(torch.stack(list(self.parts.values()))).tolist()
        return {name: value / world.size for name, value in zip(self.parts, values, strict=True)}


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


def update(
    state: TrainState,
    batch: Batch,
    config: TrainConfig,
    world: World,
    *,
    logs: bool = True,
    asked_to_end: bool = False,
) -> Update:
    """Move `state` by one step; where a loss or gradient is not finite, leave it as it was.

    `logs` is whether parts of the loss will be read, and `asked_to_end` whether this worker has
    been, which all come to know.
    """
    values = schedules(config, state.step)
    if not is_trained(config):
        state.step += 1
        return Update(
            loss=0.0,
            parts={},
            gradient_norm=0.0,
            learning_rate=0.0,
            digests=world.gather(batch.views.digest).cpu(),
            asked_to_end=bool(world.sum(torch.full((), asked_to_end * 1.0, device=world.device))),
            failure="",
        )
    state.optimizer.zero_grad()
    total, parts, centers = backward(state, batch, values, config, world, logs=logs)
    parameters = list(state.student.parameters())
    norm = clip_gradients(parameters, config.optimizer.clip_norm, world)
    sums = world.sum(torch.stack([total, torch.full_like(total, asked_to_end)]))
    numbers = torch.cat([sums / world.size, norm[None]])
    # All that the host asks of the device in a step.
    arriving = world.receive(
        torch.cat([numbers.double().view(torch.int64), world.gather(batch.views.digest)])
    )
    if state.step < config.optimizer.freeze_last_layer_steps:
        for parameter in state.student.last_layer:
            parameter.grad = None
    set_schedule(state.optimizer, values.learning_rate, values.weight_decay)
    ahead = decides_by_itself(config, world)
    if ahead:
        step_where_finite(state.optimizer, numbers)
    arrived = arriving()
    loss, share_asked, gradient_norm = arrived[:3].view(torch.float64).tolist()
    failure = ""
    if not math.isfinite(loss):
        failure = f"loss is {loss}"
    elif not math.isfinite(gradient_norm):
        failure = f"gradient norm is {gradient_norm}"
    if not failure:
        if not ahead:
            state.optimizer.step()
        move_teacher(state.teacher, state.student, values.momentum)
        state.centers = centers
        state.step += 1
    return Update(
        loss=loss,
        parts=parts,
        gradient_norm=gradient_norm,
        learning_rate=values.learning_rate,
        digests=arrived[3:],
        asked_to_end=share_asked > 0,
        failure=failure,
    )


def decides_by_itself(config: TrainConfig, world: World) -> bool:
    """Whether the device leaves weights as they are where something is not finite, unasked.

    Then it has work while the host waits for it. PyTorch cannot do so with shared parameters.
    """
    return world.device.type != "cpu" and not config.compute.sharded


def backward(
    state: TrainState,
    batch: Batch,
    values: Schedules,
    config: TrainConfig,
    world: World,
    *,
    logs: bool,
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Add the gradients of the loss; returns the loss, its parts by metric name, the next centers.

    Gradients are means over all workers; the loss and its parts are scalars without gradients,
    means over this worker's images.
    """
    # Within one context, weights that are cast once are cast for all forward passes. Those that
    # workers share are made whole anew for each, and take gradients once.
    is_shared = config.compute.sharded and world.size > 1
    with nullcontext() if is_shared else world.autocast("fp32"):
        step = _Step.of(state, batch, config, world)
        with torch.no_grad():
            targets, centers = step.targets(values)
        total = torch.zeros((), device=world.device)
        sums: dict[str, Tensor] = {}
        for piece, piece_targets in zip(step.pieces, targets, strict=True):
            share = piece.images / len(batch.identifiers)
            loss, parts = step.loss(piece, piece_targets, logs=logs)
            is_last = piece is step.pieces[-1]
            means = world.averaging(state.student.parameters()) if is_last else nullcontext()
            with means:
                (loss * share).backward()
            total += loss.detach() * share
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value.detach() * share
    return total, sums, centers


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One step's forward passes, part by part."""

    state: TrainState
    batch: Batch
    config: TrainConfig
    world: World
    sites: Mapping[str, Site]
    pieces: list[Piece]

    @classmethod
    def of(cls, state: TrainState, batch: Batch, config: TrainConfig, world: World) -> "_Step":
        return cls(
            state=state,
            batch=batch,
            config=config,
            world=world,
            sites=sites(config.loss),
            pieces=batch.pieces
            or pieces(
                batch.identifiers,
                batch.epochs,
                config,
                batch.views.grid(config.model.patch_size),
                world.device,
            ),
        )

    def targets(self, values: Schedules) -> tuple[list[dict[str, Targets]], dict[str, Tensor]]:
        """Targets of each part by site, made over the whole global batch, and the next centers."""
        logits: dict[str, list[Tensor]] = {name: [] for name in self.sites}
        kept: dict[str, list[Tensor | None]] = {name: [] for name in self.sites}
        teacher = self.state.teacher
        for piece in self.pieces if self.sites else []:
            seen = self._seen(teacher, piece, is_global=True)
            for name, site in self.sites.items():
                logits[name].append(self._head(teacher, site)(site.rows(seen)))
                kept[name].append(site.keep(seen))
        targets: list[dict[str, Targets]] = [{} for _ in self.pieces]
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
        self, piece: Piece, targets: Mapping[str, Targets], *, logs: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss of a part, a scalar with gradients, and its parts by metric name."""
        student, config = self.state.student, self.config.loss
        seen = self._seen_by_student(piece)
        total = torch.zeros((), device=self.world.device)
        parts: dict[str, Tensor] = {}
        for name, site in self.sites.items():
            loss = site.loss(targets[name], seen, self._head(student, site))
            total = total + site.weight * loss
            parts[f"loss/{name}"] = loss
            if logs:
                entropy = site.target_entropy(targets[name], seen)
                parts[f"loss/{name}_target_entropy"] = entropy
                parts[f"loss/{name}_kl"] = loss.detach() - entropy
        if config.labels:
            assert self.batch.labels is not None
            with self._autocast():
                scores = student.classifier(torch.cat([one.features.cls for one in seen])).float()
            labels = self.batch.labels[piece.place].repeat(len(scores) // piece.images)
            parts["loss/labels"] = functional.cross_entropy(scores, labels)
            parts["loss/labels_top1"] = (scores.argmax(1) == labels).float().mean()
            total = total + config.labels * parts["loss/labels"]
        if config.koleo:
            each = seen[0].features.image.chunk(self.config.augment.global_crops)
            spread = [koleo(self.world.gather_with_gradient(view)) for view in each]
            parts["loss/koleo"] = torch.stack(spread).sum()
            total = total + config.koleo * parts["loss/koleo"]
        return total, parts

    def _seen_by_student(self, piece: Piece) -> list[Seen]:
        """What the student makes of global views, and of local ones if there are any."""
        student, images = self.state.student, len(self.batch.identifiers)
        views = self.batch.views
        if not len(views.local_crops):
            return [self._seen(student, piece, is_global=True)]
        if not self.config.compute.packed:
            return [self._seen(student, piece, is_global=one) for one in (True, False)]
        groups = [
            (normalize(piece.crops(crops, images)), draws)
            for crops, draws in (
                (views.global_crops, piece.global_views),
                (views.local_crops, piece.local_views),
            )
        ]
        with self._autocast():
            found = packed(student.backbone, groups, only_first=not needs_patches(self.config))
        return [
            Seen(features=one, images=piece.images, hidden=draws.mask, places=draws.masked)
            for one, (_, draws) in zip(found, groups, strict=True)
        ]

    def _seen(self, network: Network, piece: Piece, *, is_global: bool) -> Seen:
        """What a network makes of all global or all local views of a part."""
        views = self.batch.views
        crops = views.global_crops if is_global else views.local_crops
        draws = of_student = piece.global_views if is_global else piece.local_views
        if network is self.state.teacher:
            draws = piece.teacher
        only_first = not needs_patches(self.config)
        with self._autocast():
            features = network(
                normalize(piece.crops(crops, len(self.batch.identifiers))),
                draws,
                only_first=only_first,
            )
        return Seen(
            features=features,
            images=piece.images,
            hidden=of_student.mask,
            places=of_student.masked,
        )

    def _head(self, network: Network, site: Site) -> Head:
        head = network.head_of(each_patch=site.each_patch)

        def logits(rows: Tensor) -> Tensor:
            with self._autocast():
                return head(rows, self.world)

        return logits

    def _autocast(self) -> torch.autocast:
        return self.world.autocast(self.config.compute.precision)
