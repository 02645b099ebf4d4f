"""Knobs of how the same mathematics is computed."""

from typing import Literal, Self

from pydantic import model_validator

from trainers.config.knob import OURS, Knobs, Switch, knob


class ComputeConfig(Knobs):
    """How the same mathematics is computed."""

    precision: Literal["fp32", "bf16"] = knob(
        "fp32", "numbers in which the networks compute; losses and weights stay fp32", source=OURS
    )
    compile: Switch = knob(
        False,
        "whether positions, blocks and the head are compiled before the first step",
        source="torch.compile",
    )
    activation_checkpointing: Switch = knob(
        False,
        "whether blocks are computed again in the backward pass, to save memory",
        source="Chen et al. 2016",
    )
    accumulate: int = knob(
        1,
        "parts into which a worker's images are split for forward and backward; center, EMA and "
        "schedules move once a step, whatever this is",
        source=OURS,
        ge=1,
        le=10**6,
    )
    packed: Switch = knob(
        False,
        "whether global and local crops go through the student's blocks together, as one row of "
        "tokens; not with compute.sharded",
        source="DINOv2",
    )
    sharded: Switch = knob(
        False, "whether several workers share matrices and their moments", source="PyTorch FSDP2"
    )

    @model_validator(mode="after")
    def _packed_is_whole(self) -> Self:
        if self.packed and self.sharded:
            raise ValueError("packed and sharded do not go together: turn one of them off")
        return self
