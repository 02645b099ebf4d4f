"""DINO training from top to bottom (Caron et al. 2021, algorithm 1)."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainers import checkpoint
from trainers.augment import augment
from trainers.config import TrainConfig
from trainers.data.image_set import ImageSet
from trainers.errors import ConfigError
from trainers.evals.collapse import collapsed
from trainers.evaluation import evaluate
from trainers.keys import Stream
from trainers.reporter import Reporter
from trainers.sampling import batch as sample_batch
from trainers.state import TrainState
from trainers.step import Batch, update
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
    classes = _classes(config, images)
    if resume_from is None:
        state = TrainState.fresh(config, world.device, classes)
        reporter.report(0, evaluate(state, images, config) if world.is_first else {})
    else:
        state = checkpoint.load(resume_from, config, world.device, classes)
    stream = Stream(config.seed, "augmentation")
    evaluation: dict[str, float] = {}
    clock = _Clock(state.step)

    while state.step < config.steps:
        places, epochs = sample_batch(config.seed, state.step, config.batch_size, len(images.train))
        places = images.train[places]
        mine = world.share(places)
        identifiers = images.identifiers[mine].to(world.device)
        mine_epochs = world.share(epochs).to(world.device)
        views = augment(
            images.pixels(mine).to(world.device),
            images.aspect(mine).to(world.device),
            identifiers,
            mine_epochs,
            config.augment,
            stream,
            config.model.patch_size,
        )
        state.extend_chain(images.identifiers[places], world.gather(views.digest))
        batch = Batch(
            views=views,
            identifiers=identifiers,
            epochs=mine_epochs,
            labels=None if images.labels is None else images.labels[mine].to(world.device),
        )
        done = update(state, batch, config, world)
        if done.failure:
            return _diverged(state, done.failure, checkpoints)

        is_last = state.step == config.steps
        logs = is_last or state.step % config.log_every == 0
        evaluates = is_last or state.step % config.evaluation.every == 0
        metrics: dict[str, float] = {}
        if logs:
            metrics = {
                name: world.sum(part).item() / world.size for name, part in done.parts.items()
            }
            metrics |= {
                "loss/total": done.loss,
                "optimizer/gradient_norm": done.gradient_norm,
                "optimizer/learning_rate": done.learning_rate,
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


def _classes(config: TrainConfig, images: ImageSet) -> int:
    """How many classes a supervised loss tells apart."""
    if config.loss.labels and images.labels is None:
        raise ConfigError(
            f"loss.labels is {config.loss.labels}, but {config.data.source!r} has no labels; "
            "give labelled images, or set loss.labels 0"
        )
    return len(images.class_names)


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
