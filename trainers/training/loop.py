"""DINO training from top to bottom (Caron et al. 2021, algorithm 1)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from trainers.config import TrainConfig, in_steps, map_steps
from trainers.config.size import remedy_of_evaluation
from trainers.config.stages import augment_of_step
from trainers.data.augment import augment
from trainers.data.image_set import ImageSet
from trainers.data.prefetch import prefetch
from trainers.errors import ConfigError, DivergedError
from trainers.evaluation.collapse import collapsed
from trainers.evaluation.evaluate import evaluate
from trainers.randomness.sample_order import batch as sample_batch
from trainers.randomness.streams import Stream
from trainers.system.memory import memory_explained
from trainers.system.transfer import Beside, sent
from trainers.system.world import World
from trainers.training import checkpoint, stopping
from trainers.training.pace import Pace
from trainers.training.pieces import pieces
from trainers.training.reporter import Reporter
from trainers.training.saving import Keeper, Saving
from trainers.training.starting import Starting
from trainers.training.state import TrainState
from trainers.training.step import Batch, update


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
    starting: Starting | None = None,
    step_done: Callable[[], None] = lambda: None,
    keeper: Keeper | None = None,
) -> Result:
    """Train as `config` says, reporting to `reporter` and saving state into `checkpoints`.

    Every worker of `world` calls this alike; all evaluate, and the first one saves, or with
    `compute.sharded` each its parts. Evaluations come at step 0, at the configured cadence and at
    the last step. With `resume_from`, a checkpoint of the same configuration, the run goes on as
    if it had never stopped, bit for bit on the same device type and world size; else it starts
    from `starting`, the weights that `model.weights` names. A loss or gradient that is not finite
    ends the run as `diverged`, before the update, and so does an evaluation whose features or
    outputs are not. SIGTERM ends it where `stopping` listens for it:
    saved, with Interrupted. `step_done` is called after each update. `keeper` makes checkpoints
    count, and is given what evaluations say of single images; without one, every whole file counts.
    """
    config = in_steps(config, len(images.train))
    saves = Saving(config, checkpoints, world, reporter, resume_from, keeper)
    with stopping.heeded(), saves as saving:
        try:
            return _train(config, images, world, reporter, saving, resume_from, starting, step_done)
        except _DivergedAtEvaluation as found:
            return _diverged(found.state, found.what, found.state.step, saving)


def _train(
    config: TrainConfig,
    images: ImageSet,
    world: World,
    reporter: Reporter,
    saving: Saving,
    resume_from: Path | None,
    starting: Starting | None,
    step_done: Callable[[], None],
) -> Result:
    classes = _classes(config, images)
    if resume_from is None:
        _refuse_without_weights(config, starting)
        state = TrainState.fresh(config, world, classes, starting)
        first = _evaluate(state, images, config, world, classes, saving)
        reporter.report(0, first)
        saving.after(state, first)
    else:
        state = checkpoint.load(resume_from, config, world, classes)
    stream = Stream(config.seed, "augmentation")
    beside = Beside(world.device)
    evaluation: dict[str, float] = {}
    pace = Pace(config, world, classes, state.step)
    last = config.steps
    if state.step and _ended(state, config):
        evaluation = _evaluate(state, images, config, world, classes, saving)
        if stopping.has_collapsed(config, world, evaluation):
            last = state.step

    def read(step: int) -> _Read:
        places, epochs = sample_batch(config.seed, step, config.batch_size, len(images.train))
        places = images.train[places]
        mine, epochs = world.share(places), world.share(epochs)
        identifiers = images.identifiers[mine]
        labels = [] if images.labels is None else [images.labels[mine]]
        with beside.making():
            views = augment(
                images.pixels(mine, world.device),
                images.aspect(mine),
                identifiers,
                epochs,
                augment_of_step(config, step),
                stream,
                config.model.patch_size,
            ).on(world.device)
            labels = sent(labels, world.device)
            batch = Batch(
                views=views,
                identifiers=identifiers,
                epochs=epochs,
                labels=labels[0] if labels else None,
                pieces=pieces(
                    identifiers, epochs, config, views.grid(config.model.patch_size), world.device
                ),
            )
            return _Read(batch=batch, identifiers=images.identifiers[places], ready=beside.done())

    ahead, threads = _AHEAD if world.device.type != "cpu" else (0, 1)
    for seen in pace.waiting(prefetch(read, range(state.step, last), ahead, threads)):
        batch = seen.batch
        beside.take(batch.tensors(), seen.ready)
        is_last = state.step + 1 == config.steps
        logs = is_last or (state.step + 1) % config.log_every == 0
        asked = stopping.asked_to_end()
        done = update(state, batch, config, world, logs=logs, asked_to_end=asked)
        state.extend_chain(seen.identifiers, done.digests)
        if done.failure:
            return _diverged(state, done.failure, state.step + 1, saving)
        step_done()

        evaluates = is_last or state.step % config.evaluation.every == 0
        metrics: dict[str, float] = {}
        if logs:
            metrics = done.losses(world) | {
                "loss/total": done.loss,
                "optimizer/gradient_norm": done.gradient_norm,
                "optimizer/learning_rate": done.learning_rate,
                "data/chain": state.chain_number,
                **pace.metrics(state.step),
            }
        if evaluates:
            evaluation = _evaluate(state, images, config, world, classes, saving)
            metrics |= evaluation
        if logs or evaluates:
            reporter.report(state.step, metrics)
            pace.restart(state.step)
        evaluated = evaluation if evaluates else None
        why = "" if is_last else stopping.why_to_end(config, world, evaluated, done.asked_to_end)
        saving.after(state, evaluated, now=is_last or bool(why))
        if why == "interrupted":
            saving.wait()
            raise stopping.Interrupted(state.step)
        if why:
            break

    reason = collapsed(evaluation)
    return Result(
        status="collapsed" if reason else "finished",
        reason=f"at step {state.step}: {reason}" if reason else "",
        step=state.step,
        chain=state.chain.hex(),
    )


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What was read and made of the data set for a step."""

    batch: Batch
    """of this worker, on its device"""
    identifiers: Tensor
    """int64 [B], of the images of all workers"""
    ready: torch.cuda.Event | None
    """when the batch will be there"""


_AHEAD = (3, 2)
"""Steps made beforehand, and threads that make them, one decoding while the other cuts. None where
a CPU trains, which has no time for both."""


def _evaluate(
    state: TrainState,
    images: ImageSet,
    config: TrainConfig,
    world: World,
    classes: int,
    saving: Saving,
) -> dict[str, float]:
    """Metrics, the same on every worker; the keeper is given what it says of single images.

    Values of each image are of step 0 and of the last step alone, maps of `map_steps`.
    """
    whole = state.unsharded(config, world, classes)
    by_image: dict[str, Tensor] = {}
    maps: dict[str, Tensor] = {}
    kept = by_image if state.step in (0, config.steps) else None
    shown = maps if state.step in map_steps(config) else None
    with memory_explained("an evaluation", remedy_of_evaluation(config.evaluation)):
        try:
            metrics = evaluate(whole, images, config, world=world, by_image=kept, maps=shown)
        except DivergedError as error:
            raise _DivergedAtEvaluation(state, str(error)) from error
    if world.is_first:
        names = images.identifiers[images.shuffled(images.test)]
        saving.keeper.evaluated(state.step, names, by_image, maps)
    return metrics


class _DivergedAtEvaluation(Exception):  # noqa: N818
    def __init__(self, state: TrainState, what: str) -> None:
        self.state, self.what = state, what


def _refuse_without_weights(config: TrainConfig, starting: Starting | None) -> None:
    if bool(config.model.weights) != (starting is not None):
        raise ConfigError(
            f"model.weights is {config.model.weights!r}, and {'no' if starting is None else 'some'}"
            " weights are given to start from"
        )


def _classes(config: TrainConfig, images: ImageSet) -> int:
    """How many classes a supervised loss tells apart."""
    if config.loss.labels and images.labels is None:
        raise ConfigError(
            f"loss.labels is {config.loss.labels}, but {config.data.source!r} has no labels; "
            "give labelled images, or set loss.labels 0"
        )
    return len(images.class_names)


def _ended(state: TrainState, config: TrainConfig) -> bool:
    """Whether a run that was killed at its checkpoint may have had no step to come."""
    judged = config.stop_when == "collapsed" and state.step % config.evaluation.every == 0
    return judged or state.step == config.steps


def _diverged(state: TrainState, what: str, step: int, saving: Saving) -> Result:
    saving.wait()
    last_good = "none" if saving.step is None else f"step {saving.step}"
    return Result(
        status="diverged",
        reason=f"{what} at step {step}; last good checkpoint: {last_good}",
        step=state.step,
        chain=state.chain.hex(),
    )
