"""The teacher: an exponential moving average of the student (Caron et al. 2021, section 3.1)."""

import torch
from torch import nn

from trainers.config import TeacherConfig
from trainers.method.schedules import cosine
from trainers.system.world import here


def momentum_at(step: int, steps: int, config: TeacherConfig) -> float:
    """The teacher's momentum in the update of `step`: 1 never moves, 0 is the student itself."""
    if config.kind == "ema":
        return cosine(step, steps, config.momentum, config.momentum_end)
    return 1.0 if config.kind == "frozen" else 0.0


def move_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """``teacher ← momentum · teacher + (1 - momentum) · student``, in place.

    Buffers (the moments of batch norm) stay the teacher's own.
    """
    if momentum == 1.0:
        return
    with torch.no_grad():
        torch._foreach_lerp_(here(teacher.parameters()), here(student.parameters()), 1 - momentum)
