"""A study becomes trials, one for each different (configuration, seed); with their cost."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ablations.study import Study, needs_labels
from trainers.config import TrainConfig, flatten, override
from trainers.data.image_set import ImageSet
from trainers.errors import StudyError
from trainers.forward_draws import ForwardDraws
from trainers.loop import train
from trainers.sites import feature_site, read_out
from trainers.state import Network
from trainers.trial import TrialFolder, trial_key
from trainers.world import World

STARTUP_S = 4.0
"""Seconds a trial takes beside its steps and evaluations, measured on two cores; see LOG.md."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run to be made; identical arms share one."""

    key: str
    arms: tuple[str, ...]
    seed: int
    config: TrainConfig


@dataclass(frozen=True, kw_only=True)
class ArmCost:
    """What an arm changes besides what it means to: confounds."""

    change: Mapping[str, Any]
    before: Mapping[str, Any]
    parameters: int
    gigaflops_per_image: float
    """forward pass of backbone and head, one global crop"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that `dinolab run` would do."""

    study: Study
    trials: tuple[Trial, ...]
    arms: Mapping[str, ArmCost]

    def missing(self, folder: Path) -> list[Trial]:
        """Trials without a result in the study's run folder."""
        return [
            trial
            for trial in self.trials
            if TrialFolder(folder / "trials" / trial.key).finished() is None
        ]


def make_plan(study: Study, images: ImageSet) -> Plan:
    """The trials of a study, seed by seed so that early seeds of all arms come first.

    Raises StudyError when the study asks for what the data set does not have.
    """
    if images.labels is None and (unlabelled := needs_labels(study)):
        raise StudyError(
            f"{', '.join(unlabelled)}: k-NN needs labels, and {study.base.data.source} has none; "
            "put the images into one sub-folder a label, or use another metric"
        )
    trials: dict[str, Trial] = {}
    for seed in study.seeds:
        for arm in study.arms:
            config = study.config(arm, seed)
            key = trial_key(config, images.digest)
            arms = (*trials[key].arms, arm) if key in trials else (arm,)
            trials[key] = Trial(key=key, arms=arms, seed=seed, config=config)
    before = flatten(study.base)
    return Plan(
        study=study,
        trials=tuple(trials.values()),
        arms={
            arm: ArmCost(
                change=change,
                before={knob: before[knob] for knob in change},
                **_cost(study.config(arm, study.seeds[0])),
            )
            for arm, change in study.arms.items()
        },
    )


def _cost(config: TrainConfig) -> dict[str, Any]:
    network = Network(config, classes=2)
    side = config.augment.global_size
    draws = ForwardDraws(cls_patch=torch.zeros(1, dtype=torch.int64))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        features = network(torch.zeros(1, 3, side, side), draws)
        network.head(read_out(features, feature_site(config), config.loss))
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "gigaflops_per_image": counter.get_total_flops() / 1e9,
    }


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Measured on this machine, by a few real steps of the baseline."""

    step_s: float
    evaluation_s: float

    def trial_s(self, config: TrainConfig) -> float:
        """Seconds of a whole trial."""
        evaluations = 1 + -(-config.steps // config.evaluation.every)
        return STARTUP_S + config.steps * self.step_s + evaluations * self.evaluation_s


def measure(config: TrainConfig, images: ImageSet, steps: int = 12) -> Timing:
    """Time a few real steps and two evaluations of `config` on this machine."""
    short = override(
        config,
        {"steps": steps, "log_every": steps // 2, "evaluation.every": steps,
         "checkpoint_every": steps},
    )  # fmt: skip
    watch = _Watch()
    started = time.monotonic()
    with TemporaryDirectory() as scratch:
        train(
            short,
            images=images,
            world=World.alone(),
            reporter=watch,
            checkpoints=Path(scratch),
            resume_from=None,
        )
    spent = time.monotonic() - started
    return Timing(step_s=watch.step_s[-1], evaluation_s=(spent - sum(watch.step_s) * steps / 2) / 2)


class _Watch:
    """A reporter that keeps only how long steps take."""

    def __init__(self) -> None:
        self.step_s: list[float] = []

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        if "time/step_s" in metrics:
            self.step_s.append(metrics["time/step_s"])
