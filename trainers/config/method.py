"""Knobs of self-distillation: where the loss sits, targets, teacher, optimiser."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainers.config.knob import (
    DINO,
    OURS,
    VIT,
    Coordinate,
    Interval,
    Knobs,
    LearningRate,
    Share,
    StepsOrNone,
    Switch,
    knob,
)


class LossConfig(Knobs):
    """Where the loss sits, by weights: all 0 leaves the model untrained."""

    cls: float = knob(1.0, "weight of self-distillation on [CLS]", source=DINO, ge=0)
    patches: float = knob(0.0, "weight of the same on the mean patch token", source=OURS, ge=0)
    dense: float = knob(
        0.0,
        "weight of the same on every patch, matched to the most similar patch of the other view",
        source="Li et al. 2022 (EsViT), eq. 3",
        ge=0,
    )
    register_token: float = knob(
        0.0,
        "weight of the same on the first register",
        source="docs/small_studies.md, claim 5",
        ge=0,
    )
    fixed_patch: float = knob(
        0.0,
        "weight of the same on one patch, always at the same place",
        source="docs/small_studies.md, claim 5",
        ge=0,
    )
    fixed_patch_place: tuple[Coordinate, Coordinate] = knob(
        (0.0, 0.0),
        "where that patch lies, down and right; ±1 are the crop's borders",
        unit="half crops from the centre",
        source="docs/small_studies.md, claim 5",
    )
    masked: float = knob(
        0.0,
        "weight of self-distillation on masked patches of the student's global crops",
        source="Zhou et al. 2022 (iBOT), eq. 2",
        ge=0,
    )
    mask_kind: Literal["random", "block"] = knob(
        "random",
        "which patches of a masked crop are masked: any, or those in some rectangles",
        source="iBOT; Bao et al. 2022 (BEiT), alg. 1",
    )
    mask_share: Interval = knob(
        (0.1, 0.5), "patches masked in a masked crop", unit="share", source="iBOT"
    )
    mask_probability: Share = knob(0.5, "probability that a global crop is masked", source="iBOT")
    further: tuple[tuple[str, Annotated[float, Field(gt=0)]], ...] = knob(
        (),
        "further sites, files of one's own in trainers/method/sites, and their weights",
        source=OURS,
    )
    labels: float = knob(
        0.0,
        "weight of supervised cross-entropy on [CLS], through a linear classifier",
        source=VIT,
        ge=0,
    )
    koleo: float = knob(
        0.0,
        "weight of the KoLeo spread of [CLS] (the mean patch without one) within the global batch, "
        "summed over global crops",
        source="Sablayrolles et al. 2019; Oquab et al. 2024; DINOv2's code: 0.1",
        ge=0,
    )
    student_temperature: float = knob(0.1, "temperature of the student", source=DINO, gt=0)

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        low, high = self.mask_share
        if low > high or high > 1:
            raise ValueError(f"mask_share must rise and not exceed 1, got ({low}, {high})")
        return self

    @model_validator(mode="after")
    def _each_site_once(self) -> Self:
        names = [name for name, _ in self.further]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"further gives {twice[0]!r} more than one weight; give it one")
        return self


class TargetsConfig(Knobs):
    """How the teacher's outputs become targets."""

    kind: Literal["centering", "sinkhorn", "none"] = knob(
        "centering",
        "centred softmax, Sinkhorn-Knopp over the global batch, or plain softmax",
        source=f"{DINO}; Caron et al. 2020",
    )
    sharpening: Switch = knob(
        True,
        "whether targets are made at the teacher's own temperature, or at the student's",
        source=DINO + ", section 5.3",
    )
    temperature: float = knob(0.04, "teacher temperature after warm-up", source=DINO, gt=0)
    temperature_start: float = knob(0.04, "teacher temperature at step 0", source=DINO, gt=0)
    temperature_warmup_steps: StepsOrNone = knob(
        0, "length of the linear warm-up", unit="steps or epochs", source=DINO
    )
    patch_temperature: float = knob(
        0.0,
        "the same of losses with a row for each patch (masked, dense); 0: as for the others",
        source="bytedance/ibot, main_ibot.py: 0.07",
        ge=0,
    )
    patch_temperature_start: float = knob(
        0.04,
        "the same at step 0; the warm-up is as long",
        source="bytedance/ibot, main_ibot.py",
        gt=0,
    )
    center_momentum: Share = knob(0.9, "momentum of the center; centering only", source=DINO)
    sinkhorn_iterations: int = knob(
        3, "row and column passes; sinkhorn only", source="Caron et al. 2020", ge=1, le=10_000
    )

    def temperature_of(self, *, each_patch: bool) -> float:
        """The teacher's temperature after warm-up for losses with a row for each patch, or not."""
        return (each_patch and self.patch_temperature) or self.temperature


class TeacherConfig(Knobs):
    """What the teacher is."""

    kind: Literal["ema", "frozen", "student"] = knob(
        "ema",
        "moving average of the student, the student at step 0, or the student itself",
        source=DINO + ", section 5.2",
    )
    momentum: Share = knob(0.996, "momentum at step 0; ema only", source=DINO)
    momentum_end: Share = knob(
        1.0, "momentum that a cosine leads to over the run; ema only", source=DINO
    )


class OptimizerConfig(Knobs):
    """AdamW and its schedules."""

    learning_rate: LearningRate = knob(
        5e-4,
        "peak learning rate, for the batch as it is; `0.0005 per 256` grows with the batch",
        source=DINO + "; Goyal et al. 2017",
    )
    learning_rate_end: float = knob(
        1e-6, "learning rate that a cosine leads to over the run", source=DINO, ge=0
    )
    warmup_steps: StepsOrNone = knob(
        50, "linear warm-up of the learning rate", unit="steps or epochs", source=DINO
    )
    weight_decay: float = knob(0.04, "decoupled weight decay at step 0", source=DINO, ge=0)
    weight_decay_end: float = knob(
        0.4, "weight decay that a cosine leads to over the run", source=DINO, ge=0
    )
    clip_norm: float = knob(3.0, "largest gradient norm of each parameter", source=DINO, gt=0)
    freeze_last_layer_steps: StepsOrNone = knob(
        50,
        "first steps in which the prototypes do not move",
        unit="steps or epochs",
        source=DINO,
    )
    beta1: float = knob(0.9, "AdamW first moment", source="Loshchilov & Hutter 2019", ge=0, lt=1)
    beta2: float = knob(0.999, "AdamW second moment", source="Loshchilov & Hutter 2019", ge=0, lt=1)
