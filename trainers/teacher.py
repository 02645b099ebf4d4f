"""The teacher: an exponential moving average of the student (Caron et al. 2021, section 3.1)."""

import torch
from torch import nn


def move_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """``teacher ← momentum · teacher + (1 - momentum) · student``, in place."""
    with torch.no_grad():
        torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
