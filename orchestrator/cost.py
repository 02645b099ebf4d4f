"""What arms cost, in parameters, operations and time, and so what else than meant they change."""

import functools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trainers.config import TrainConfig, override
from trainers.data.image_set import ImageSet
from trainers.evaluation.evaluate import evaluate
from trainers.method.site import sites
from trainers.system.world import World, make_reproducible
from trainers.training.loop import train
from trainers.training.operations import operations
from trainers.training.state import TrainState

STARTUP_S = 4.0
"""Seconds a trial takes beside its steps and evaluations, measured on two cores; see LOG.md."""

_ANY = TrainConfig()

SMALLEST_SHARE = 0.001
"""Difference in FLOPs of a step that is said."""


@dataclass(frozen=True, kw_only=True)
class ArmCost:
    """What an arm changes besides what it means to: confounds."""

    change: Mapping[str, Any]
    before: Mapping[str, Any]
    parameters: int
    gigaflops_per_image: float
    """forward pass of backbone and head, one global crop"""
    gigaflops_per_step: float
    """forward and backward passes of a step: teacher on global crops, student on all, times 3;
    mean over the run"""
    tokens: int
    """of a global crop"""
    crops_per_step: int
    losses: Mapping[str, float]
    """where there is a loss, with its weight"""
    confounds: tuple[str, ...]
    """in words: what lengths in epochs and rates per 256 images become, and what is declared"""

    def differences(self, base: "ArmCost") -> tuple[str, ...]:
        """What else differs from the baseline, in words: what is counted, then `confounds`."""
        return (*self._counted(base), *self.confounds)

    def _counted(self, base: "ArmCost") -> Iterator[str]:
        if more := self.parameters - base.parameters:
            yield f"{more:+,} parameters ({100 * more / base.parameters:+.2g} %)"
        if more := self.tokens - base.tokens:
            yield f"{more:+} token{'s' * (abs(more) > 1)} in a global crop"
        if self.crops_per_step != base.crops_per_step:
            yield f"crops a step: {base.crops_per_step} → {self.crops_per_step}"
        if base.gigaflops_per_step:
            ratio = self.gigaflops_per_step / base.gigaflops_per_step
            if abs(ratio - 1) >= SMALLEST_SHARE:
                yield f"training FLOPs a step: × {ratio:.3g}"
        if self.losses != base.losses:
            yield f"loss on: {_shown(base.losses)} → {_shown(self.losses)}"


def _shown(losses: Mapping[str, float]) -> str:
    return " + ".join(f"{weight:g} {site}" for site, weight in losses.items()) or "nothing"


COUNTED_ALIKE = (
    "seed", "steps", "log_every", "checkpoint_every", "stop_when", "checkpoints", "data",
    "teacher", "optimizer", "evaluation",
)  # fmt: skip
"""Knobs and groups of them that change no operation of an image."""

_counted = functools.lru_cache(maxsize=1024)(operations)


def cost_of(config: TrainConfig, classes: int) -> dict[str, Any]:
    # Counting takes a fifth of a second, and arms often differ in nothing that is counted.
    alike = {name: getattr(_ANY, name) for name in COUNTED_ALIKE}
    counted = _counted(config.model_copy(update=alike), classes)
    losses = {name: site.weight for name, site in sites(config.loss).items()}
    losses |= {
        name: weight for name in ("labels", "koleo") if (weight := getattr(config.loss, name))
    }
    views = config.augment.global_crops + config.augment.local_crops
    return {
        "parameters": counted.parameters,
        "gigaflops_per_image": counted.forward / 1e9,
        "gigaflops_per_step": config.batch_size * counted.update / 1e9,
        "tokens": counted.tokens,
        "crops_per_step": config.batch_size * views,
        "losses": losses,
    }


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Measured on this machine, by a few real steps of the baseline."""

    step_s: float
    """mean over the run"""
    thorough_s: float
    """an evaluation at step 0 or at the last step"""
    between_s: float
    """one at the cadence"""

    def trial_s(self, config: TrainConfig) -> float:
        """Seconds of a whole trial of `config`, whose lengths are in steps."""
        between = -(-config.steps // config.evaluation.every) - 1
        evaluations = 2 * self.thorough_s + between * self.between_s
        return STARTUP_S + config.steps * self.step_s + evaluations


def measure(config: TrainConfig, images: ImageSet, *, threads: int, steps: int = 12) -> Timing:
    """Time a few real steps and evaluations of `config` here, set up as a trial's worker."""
    make_reproducible(threads)
    share = config.augment.small_share
    short = override(
        config,
        {"model.weights": "", "steps": steps, "log_every": steps // 2, "evaluation.every": steps,
         "checkpoint_every": steps, "checkpoints.keep_steps": [], "augment.small_share": 0.0},
    )  # fmt: skip
    started = time.monotonic()
    step_s = _step_s(short, images)
    trained = time.monotonic()
    small_s = _step_s(override(short, {"augment.small_share": 1.0}), images)[-1] if share else 0.0
    state = TrainState.fresh(short, World.alone(), len(images.class_names))
    began = time.monotonic()
    evaluate(state, images, short, thorough=False)
    return Timing(
        step_s=share * small_s + (1 - share) * step_s[-1],
        thorough_s=(trained - started - sum(step_s) * steps / 2) / 2,
        between_s=time.monotonic() - began,
    )


def _step_s(config: TrainConfig, images: ImageSet) -> list[float]:
    """Mean seconds of a step between the records of a run."""
    watch = _Watch()
    with TemporaryDirectory() as scratch:
        train(
            config,
            images=images,
            world=World.alone(),
            reporter=watch,
            checkpoints=Path(scratch),
            resume_from=None,
        )
    return watch.step_s


class _Watch:
    """A reporter that keeps only how long steps take."""

    def __init__(self) -> None:
        self.step_s: list[float] = []

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        if "time/step_s" in metrics:
            self.step_s.append(metrics["time/step_s"])
