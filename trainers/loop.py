"""DINO training from top to bottom (Caron et al. 2021, algorithm 1)."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from trainers import checkpoint
from trainers.augment import Views, augment, normalize
from trainers.config import TrainConfig
from trainers.data.image_set import ImageSet
from trainers.evals.collapse import collapsed
from trainers.evaluation import evaluate
from trainers.keys import Stream
from trainers.losses import distillation, entropy
from trainers.optim import clip_gradients, set_schedule
from trainers.reporter import Reporter
from trainers.sampling import batch as sample_batch
from trainers.schedules import cosine, warmup_cosine
from trainers.state import TrainState, read_out, sites
from trainers.targets import centering, sinkhorn
from trainers.teacher import move_teacher
from trainers.world import World


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run ended."""

    status: Literal["finished", "collapsed", "diverged"]
    reason: str
    """in words, when the status is not `finished`"""
    step: int
    """updates done"""
    chain: str
    """hash chain of every crop seen, hexadecimal"""


def train(
    config: TrainConfig,
    *,
    images: ImageSet,
    world: World,
    reporter: Reporter,
    checkpoints: Path,
    resume_from: Path | None,
) -> Result:
    """Train as `config` says, reporting to `reporter` and saving state into `checkpoints`.

    Every worker of `world` calls this alike; the first one evaluates and saves. Evaluations come
    at step 0, at the configured cadence and at the last step. With `resume_from`, a checkpoint of
    the same configuration, the run goes on as if it had never stopped, bit for bit on the same
    device type and world size. A loss or gradient that is not finite ends
    the run as `diverged`, before the update.
    """
    if resume_from is None:
        state = TrainState.fresh(config, world.device)
        reporter.report(0, evaluate(state, images, config) if world.is_first else {})
    else:
        state = checkpoint.load(resume_from, config, world.device)
    stream = Stream(config.seed, "augmentation")
    evaluation: dict[str, float] = {}
    clock = _Clock(state.step)

    while state.step < config.steps:
        places, epochs = sample_batch(config.seed, state.step, config.batch_size, len(images.train))
        places = images.train[places]
        mine = world.share(places)
        views = augment(
            images.pixels(mine).to(world.device),
            images.aspect(mine).to(world.device),
            images.identifiers[mine].to(world.device),
            world.share(epochs).to(world.device),
            config.augment,
            stream,
        )
        state.extend_chain(images.identifiers[places], world.gather(views.digest))

        values = schedules(config, state.step)
        loss, parts, centers = compute_loss(state, views, values, config, world)
        total = world.sum(loss.detach().clone()).item() / world.size
        if not math.isfinite(total):
            return _diverged(state, f"loss is {total}", checkpoints)

        state.optimizer.zero_grad()
        loss.backward()
        parameters = list(state.student.parameters())
        world.average_gradients(parameters)
        gradient_norm = clip_gradients(parameters, config.optimizer.clip_norm).item()
        if not math.isfinite(gradient_norm):
            return _diverged(state, f"gradient norm is {gradient_norm}", checkpoints)
        if state.step < config.optimizer.freeze_last_layer_steps:
            state.student.head.prototypes.grad = None
        set_schedule(state.optimizer, values.learning_rate, values.weight_decay)
        state.optimizer.step()
        move_teacher(state.teacher, state.student, values.momentum)
        state.centers = centers
        state.step += 1

        is_last = state.step == config.steps
        logs = is_last or state.step % config.log_every == 0
        evaluates = is_last or state.step % config.evaluation.every == 0
        metrics: dict[str, float] = {}
        if logs:
            metrics = {name: world.sum(part).item() / world.size for name, part in parts.items()}
            metrics |= {
                "loss/total": total,
                "optimizer/gradient_norm": gradient_norm,
                "optimizer/learning_rate": values.learning_rate,
                "data/chain": state.chain_number,
                "time/step_s": clock.seconds_a_step(state.step),
            }
        if evaluates and world.is_first:
            evaluation = evaluate(state, images, config)
            metrics |= evaluation
        if logs or evaluates:
            reporter.report(state.step, metrics)
            clock = _Clock(state.step)
        if is_last or state.step % config.checkpoint_every == 0:
            saved = checkpoint.save(state, config, checkpoints) if world.is_first else None
            reporter.report(state.step, {}, checkpoint=saved)

    if world.is_first and not evaluation:
        evaluation = evaluate(state, images, config)
    reason = collapsed(evaluation) if world.is_first else ""
    return Result(
        status="collapsed" if reason else "finished",
        reason=f"at step {state.step}: {reason}" if reason else "",
        step=state.step,
        chain=state.chain.hex(),
    )


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
    return Schedules(
        learning_rate=warmup_cosine(
            step,
            config.steps,
            optimizer.warmup_steps,
            optimizer.learning_rate,
            optimizer.learning_rate_end,
        ),
        weight_decay=cosine(step, config.steps, optimizer.weight_decay, optimizer.weight_decay_end),
        momentum=cosine(step, config.steps, config.teacher.momentum, config.teacher.momentum_end),
        temperature=cosine(
            step,
            targets.temperature_warmup_steps + 1,
            targets.temperature_start,
            targets.temperature,
        ),
    )


def compute_loss(
    state: TrainState, views: Views, values: Schedules, config: TrainConfig, world: World
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The weighted loss, a scalar that carries gradients; its parts by metric name; next centers.

    The parts are scalars without gradients, means over this worker's images.
    """
    global_crops, local_crops = normalize(views.global_crops), normalize(views.local_crops)
    with torch.no_grad():
        teacher_features = state.teacher(global_crops)
    student_features = [state.student(global_crops)]
    if len(local_crops):
        student_features.append(state.student(local_crops))

    total = torch.zeros((), device=world.device)
    parts = {}
    centers = {}
    for site, weight in sites(config.loss).items():
        with torch.no_grad():
            teacher_logits = state.teacher.head(read_out(teacher_features, site))
        if config.targets.kind == "sinkhorn":
            centers[site] = state.centers[site]
            targets = sinkhorn(
                teacher_logits, values.temperature, config.targets.sinkhorn_iterations, world
            )
        else:
            targets, centers[site] = centering(
                teacher_logits,
                state.centers[site],
                values.temperature,
                config.targets.center_momentum,
                world,
            )
        logits = state.student.head(torch.cat([read_out(f, site) for f in student_features]))
        images = len(views.digest)
        loss = distillation(
            targets.unflatten(0, (-1, images)),
            logits.unflatten(0, (-1, images)),
            config.loss.student_temperature,
        )
        total = total + weight * loss
        target_entropy = entropy(targets)
        parts[f"loss/{site}"] = loss.detach().clone()
        parts[f"loss/{site}_target_entropy"] = target_entropy
        parts[f"loss/{site}_kl"] = loss.detach() - target_entropy
    return total, parts, centers


def _diverged(state: TrainState, what: str, checkpoints: Path) -> Result:
    saved = checkpoints / checkpoint.FILE_NAME
    last_good = f"step {checkpoint.saved_step(saved)}" if saved.exists() else "none"
    return Result(
        status="diverged",
        reason=f"{what} at step {state.step + 1}; last good checkpoint: {last_good}",
        step=state.step,
        chain=state.chain.hex(),
    )


class _Clock:
    def __init__(self, step: int) -> None:
        self.started, self.step = time.monotonic(), step

    def seconds_a_step(self, step: int) -> float:
        return (time.monotonic() - self.started) / (step - self.step)
