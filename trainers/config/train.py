"""One run, whole: every group of knobs, and what must fit between them."""

from typing import Literal, Self

from pydantic import model_validator

from trainers.config.checkpoints import CheckpointsConfig
from trainers.config.compute import ComputeConfig
from trainers.config.data import AugmentConfig, DataConfig
from trainers.config.evaluation import EvaluationConfig
from trainers.config.knob import OURS, Knobs, Steps, knob
from trainers.config.method import LossConfig, OptimizerConfig, TargetsConfig, TeacherConfig
from trainers.config.model import HeadConfig, ModelConfig
from trainers.config.size import MOST_GIB, MOST_PATCHES, least_gib, patches


class TrainConfig(Knobs):
    """One run of DINO training, whole: same configuration and seed, same bits."""

    seed: int = knob(0, "seed of every random draw, below 2⁶³", source=OURS, ge=0, lt=2**63)
    steps: Steps = knob(
        600, "length of the run", unit="optimiser steps, or `100 epochs`", source=OURS
    )
    batch_size: int = knob(32, "images a step, over all workers", source=OURS, ge=1, le=10**6)
    log_every: Steps = knob(
        20, "time between records of the training loss", unit="steps or epochs", source=OURS
    )
    checkpoint_every: Steps = knob(
        200, "time between checkpoints", unit="steps or epochs", source=OURS
    )
    stop_when: Literal["none", "collapsed"] = knob(
        "none",
        "whether an evaluation after step 0 that finds outputs or features the same for every "
        "image ends the run there; early in training that may pass by itself",
        source=OURS,
    )
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    head: HeadConfig = HeadConfig()
    loss: LossConfig = LossConfig()
    targets: TargetsConfig = TargetsConfig()
    teacher: TeacherConfig = TeacherConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    compute: ComputeConfig = ComputeConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        patch = self.model.patch_size
        for name, side in (
            ("data.image_size", self.data.image_size),
            ("augment.global_size", self.augment.global_size),
            ("augment.local_size", self.augment.local_size),
        ):
            if side % patch:
                raise ValueError(
                    f"{name} must be a multiple of model.patch_size {patch}: {side}; "
                    f"{max(1, round(side / patch)) * patch} is the nearest"
                )
        cut = ("global_size", "local_size") if self.augment.local_crops else ("global_size",)
        for name in cut if self.augment.small_share else ():
            if (side := getattr(self.augment, name)) % (2 * patch):
                raise ValueError(
                    f"augment.{name} must be a multiple of {2 * patch}, twice model.patch_size, "
                    f"where augment.small_share halves it: {side}; or set augment.small_share 0"
                )
        grid = self.augment.global_size // patch
        if max(self.model.cls_tied_patch) >= grid:
            raise ValueError(
                f"model.cls_tied_patch must lie in the {grid}×{grid} grid: "
                f"{self.model.cls_tied_patch}"
            )
        if max(self.evaluation.globality_layers) > self.model.depth:
            raise ValueError(
                f"evaluation.globality_layers must be 1..{self.model.depth} (model.depth): "
                f"{self.evaluation.globality_layers}"
            )
        latest = max(self.checkpoints.keep_steps, default=0)
        if isinstance(self.steps, int) and latest > self.steps:
            raise ValueError(
                f"checkpoints.keep_steps must be 0..{self.steps} (steps): "
                f"{self.checkpoints.keep_steps}"
            )
        return self

    @model_validator(mode="after")
    def _a_machine_holds_it(self) -> Self:
        for name in ("global_size", "local_size"):
            number = patches(self, getattr(self.augment, name))
            if number > MOST_PATCHES:
                raise ValueError(
                    f"augment.{name} {getattr(self.augment, name)} makes {number:,} patches of "
                    f"{self.model.patch_size} pixels, {MOST_PATCHES:,} is the most: set a smaller "
                    "crop or a larger model.patch_size"
                )
        if (needed := least_gib(self)) > MOST_GIB:
            raise ValueError(
                f"networks and one image take {needed:,.0f} GiB or more, {MOST_GIB:,} is the most: "
                "set a smaller model.width, model.depth or head"
            )
        if self.compute.accumulate > self.batch_size:
            raise ValueError(
                f"compute.accumulate must be 1..{self.batch_size} (batch_size), each part with an "
                f"image or more: {self.compute.accumulate}"
            )
        return self

    @model_validator(mode="after")
    def _loss_has_what_it_needs(self) -> Self:
        loss, model = self.loss, self.model
        for name in ("cls", "labels"):
            if getattr(loss, name) and not model.cls:
                raise ValueError(
                    f"loss.{name} needs a [CLS] token: set model.cls, or loss.{name} 0"
                )
        if loss.register_token and not model.registers:
            raise ValueError(
                "loss.register_token needs a register: set model.registers to 1 or more"
            )
        views = self.augment.global_crops + self.augment.local_crops
        compared = ("cls", "patches", "dense", "register_token", "fixed_patch", "further")
        if views < 2 and any(getattr(loss, name) for name in compared):
            raise ValueError(
                "augment.global_crops + augment.local_crops must be 2 or more: "
                "self-distillation compares views"
            )
        if self.compute.accumulate > 1 and (loss.koleo or self.head.batch_norm):
            raise ValueError(
                "compute.accumulate must be 1 with loss.koleo or head.batch_norm: "
                "both look at the whole batch at once"
            )
        return self
