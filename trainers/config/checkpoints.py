"""Knobs of which checkpoints outlive the next one."""

from typing import Annotated, Literal

from pydantic import Field

from trainers.config.knob import OURS, Knobs, StepsOrNone, knob

Step = Annotated[int, Field(ge=0, le=10**9)]


class CheckpointsConfig(Knobs):
    """Which checkpoints stay when a newer one is written; the last one always does."""

    keep_every: StepsOrNone = knob(
        0, "time between checkpoints that stay; 0: none", unit="steps or epochs", source=OURS
    )
    keep_steps: tuple[Step, ...] = knob(
        (), "steps whose checkpoints stay; 0 is before the first update", unit="steps", source=OURS
    )
    keep_best: str = knob(
        "", "metric of the evaluation whose best checkpoint stays; empty: none", source=OURS
    )
    keep_best_is: Literal["highest", "lowest"] = knob(
        "highest", "which value of that metric is the best", source=OURS
    )
