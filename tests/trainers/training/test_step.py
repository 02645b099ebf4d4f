"""A whole update against a second implementation, written from the paper with plain operations."""

import math

import pytest
import torch
from torch.nn import functional

from tests.trainers.method.test_sites import BASE, batch
from trainers.config import override
from trainers.system.world import World
from trainers.training.state import TrainState
from trainers.training.step import schedules, update

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
CONFIG = override(
    BASE,
    {
        "steps": 6, "model.registers": 0,
        "targets.kind": "centering", "teacher.kind": "ema", "teacher.momentum": 0.9,
        "targets.temperature_start": 0.05, "targets.temperature": 0.1,
        "targets.temperature_warmup_steps": 4, "optimizer.warmup_steps": 2,
        "optimizer.weight_decay": 0.04, "optimizer.weight_decay_end": 0.4,
        "optimizer.clip_norm": 0.05, "optimizer.freeze_last_layer_steps": 2,
    },
)  # fmt: skip


def standardised(crops):
    mean = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
    deviation = torch.tensor((0.229, 0.224, 0.225))[:, None, None]
    return (crops.float() / 255 - mean) / deviation


@pytest.mark.slow
def test_updates_are_those_of_algorithm_1():
    state = TrainState.fresh(CONFIG, ALONE)
    reference = TrainState.fresh(CONFIG, ALONE)
    student, teacher = reference.student, reference.teacher
    center = torch.zeros(16)
    moments = {name: [0.0, 0.0] for name, _ in student.named_parameters()}
    for step in range(CONFIG.steps):
        seen = batch(step)
        loss = update(state, seen, CONFIG, ALONE).loss
        # Schedules: DINO's formulas.
        half = (1 + math.cos(math.pi * step / 6)) / 2
        momentum = 1 + (0.9 - 1) * half
        decay = 0.4 + (0.04 - 0.4) * half
        rates = [0.0, 3e-3] + [
            1e-6 + (3e-3 - 1e-6) * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)
        ]
        temperature = min(0.05 + (0.1 - 0.05) * step / 3, 0.1)
        values = schedules(CONFIG, step)
        assert values.learning_rate == pytest.approx(rates[step])
        assert values.temperature == pytest.approx(temperature)

        whole = standardised(seen.views.global_crops)
        part = standardised(seen.views.local_crops)
        with torch.no_grad():
            targets = teacher.head(teacher.backbone(whole).cls)
        outputs = torch.cat([student.head(student.backbone(crops).cls) for crops in (whole, part)])
        total, pairs = 0.0, 0
        for g in range(2):
            target = torch.softmax((targets.chunk(2)[g] - center) / temperature, -1)
            for v in range(4):
                if v != g:
                    log_student = functional.log_softmax(outputs.chunk(4)[v] / 0.1, -1)
                    total = total - (target * log_student).sum(-1).mean()
                    pairs += 1
        center = 0.9 * center + 0.1 * targets.mean(0)
        student.zero_grad()
        (total / pairs).backward()
        assert loss == pytest.approx((total / pairs).item(), rel=1e-5)
        with torch.no_grad():
            for name, parameter in student.named_parameters():
                gradient = parameter.grad * min(1.0, 0.05 / (parameter.grad.norm().item() + 1e-6))
                if name == "head.prototypes" and step < 2:
                    continue
                first, second = moments[name]
                count = step + 1 - (2 if name == "head.prototypes" else 0)
                first = 0.9 * first + 0.1 * gradient
                second = 0.999 * second + 0.001 * gradient**2
                moments[name] = [first, second]
                if parameter.ndim > 1:
                    parameter.mul_(1 - rates[step] * decay)
                scaled = first / (1 - 0.9**count)
                parameter.sub_(rates[step] * scaled / ((second / (1 - 0.999**count)).sqrt() + 1e-8))
            for own, other in zip(teacher.parameters(), student.parameters(), strict=True):
                own.copy_(momentum * own + (1 - momentum) * other)
    torch.testing.assert_close(state.centers["cls"], center, rtol=1e-4, atol=1e-6)
    for ours, theirs in ((state.student, student), (state.teacher, teacher)):
        other = dict(theirs.named_parameters())
        for name, parameter in ours.named_parameters():
            expected = other[name]
            if name.endswith("qkv.bias"):
                # A bias of keys changes no attention: its gradient is rounding, which Adam scales.
                queries_and_values = [*range(24), *range(48, 72)]
                parameter, expected = parameter[queries_and_values], expected[queries_and_values]
            torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=2e-5, msg=name)
