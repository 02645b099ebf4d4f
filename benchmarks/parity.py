"""Do we compute what the original computes? The loss of the first steps, side by side.

    python -m benchmarks.parity --original PATH
    python -m benchmarks.parity --crops 2000 [--original PATH]

Both start from our weights, see the same crops and follow the same schedules, in float32: learning
rate with warm-up, weight decay, momentum, teacher temperature with warm-up, clipping, prototypes
frozen in the first steps. The original's own `train_one_epoch` is called with epochs of one step,
since its teacher temperature and its freezing go by epochs. Exits with 1 if any loss differs by
more than the limit.

With `--crops`, crops are compared instead: gradient and colours of so many of each kind.

The original interpolates positions for local crops as if they were 0.1 patch longer (its issue 8);
so does ours here, by `model.interpolation_offset`.
"""

import argparse
import dataclasses
import math
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import ours
from benchmarks.original import Original, Training
from benchmarks.setting import SETTINGS, Setting
from trainers.config import TrainConfig, override
from trainers.data.augment import normalize
from trainers.model.network import Network
from trainers.training.state import TrainState
from trainers.training.step import schedules, update

LIMIT = 1e-4
PARITY = Setting(
    name="width 96, depth 3, 64 and 32 pixels",
    width=96,
    depth=3,
    heads=3,
    patch=8,
    global_size=64,
    local_size=32,
    local_crops=4,
    batch=8,
    hidden=256,
    bottleneck=64,
    prototypes=512,
)


def configuration(setting: Setting, steps: int) -> TrainConfig:
    """Everything that follows a schedule moves within `steps`."""
    return override(
        ours.configuration(setting),
        {
            "steps": steps,
            "optimizer.learning_rate": 1e-3,
            "optimizer.warmup_steps": steps // 4,
            "optimizer.freeze_last_layer_steps": steps // 5,
            "optimizer.clip_norm": 0.3,
            "targets.temperature_start": 0.04,
            "targets.temperature": 0.07,
            "targets.temperature_warmup_steps": steps // 2,
            "teacher.momentum": 0.99,
            "model.interpolation_offset": 0.1,
        },
    )


def original_names(network: Network) -> dict[str, Tensor]:
    """Our parameters under the names that the original's MultiCropWrapper has for them."""
    found: dict[str, Tensor] = {}
    state = network.state_dict()
    position = torch.cat([state.pop("backbone.cls_position"), state.pop("backbone.position")], 1)
    found["backbone.pos_embed"] = position
    found["backbone.cls_token"] = state.pop("backbone.cls")
    prototypes = state.pop("head.prototypes")
    found["head.last_layer.weight_v"] = prototypes
    found["head.last_layer.weight_g"] = torch.ones(len(prototypes), 1)
    parts = {
        ".attention.qkv.": ".attn.qkv.",
        ".attention.projection.": ".attn.proj.",
        ".expand.": ".mlp.fc1.",
        ".contract.": ".mlp.fc2.",
        ".embedding.": ".patch_embed.proj.",
    }
    for name, tensor in state.items():
        for mine, theirs in parts.items():
            name = name.replace(mine, theirs)
        if name.startswith("head.layers."):
            _, _, number, kind = name.split(".")
            # A GELU stands between the linear layers of its MLP.
            name = f"head.mlp.{2 * int(number)}.{kind}"
        found[name] = tensor
    return found


def crops_of(setting: Setting, step: int) -> tuple[Tensor, Tensor]:
    """Smooth uint8 crops of one step, all views of a kind one after the other."""
    generator = torch.Generator().manual_seed(step)

    def smooth(count: int, size: int) -> Tensor:
        coarse = torch.rand(count * setting.batch, 3, 8, 8, generator=generator)
        crops = functional.interpolate(coarse, (size, size), mode="bicubic")
        return crops.clamp(0, 1).mul(255).to(torch.uint8)

    return (
        smooth(setting.global_crops, setting.global_size),
        smooth(setting.local_crops, setting.local_size),
    )


def run_ours(config: TrainConfig, setting: Setting) -> list[float]:
    """Our losses."""
    world = ours.world_on("cpu")
    state = TrainState.fresh(config, world)
    losses = []
    for step in range(config.steps):
        batch = ours.batch_of(*crops_of(setting, step), setting.batch, "cpu")
        losses.append(update(state, batch, config, world).loss)
    return losses


def run_original(path: str, config: TrainConfig, setting: Setting) -> list[float]:
    """The original's losses, from the same start; its loss object is asked what it gave."""
    original = Original(path, "cpu")
    targets, steps = config.targets, config.steps
    training = Training(
        original,
        setting,
        epochs=steps,
        teacher_temperatures=(
            targets.temperature_start,
            targets.temperature,
            targets.temperature_warmup_steps,
        ),
        clip=config.optimizer.clip_norm,
        frozen_epochs=config.optimizer.freeze_last_layer_steps,
    )
    start = original_names(TrainState.fresh(config, ours.world_on("cpu")).student)
    for network in (training.student, training.teacher):
        network.load_state_dict(start)
    losses: list[float] = []
    training.loss.register_forward_hook(lambda _m, _i, loss: losses.append(loss.item()))
    optimizer = config.optimizer
    cosine = original.utils.cosine_scheduler
    by_step = (
        _Schedule(
            np.concatenate(
                [
                    np.linspace(0, optimizer.learning_rate, optimizer.warmup_steps),
                    cosine(
                        optimizer.learning_rate,
                        optimizer.learning_rate_end,
                        1,
                        steps - optimizer.warmup_steps,
                    ),
                ]
            )
        ),
        _Schedule(cosine(optimizer.weight_decay, optimizer.weight_decay_end, 1, steps)),
        _Schedule(cosine(config.teacher.momentum, config.teacher.momentum_end, 1, steps)),
    )
    _compare_schedules(config, by_step)
    for step in range(steps):
        whole, part = (normalize(crops) for crops in crops_of(setting, step))
        views = [*whole.chunk(setting.global_crops), *part.chunk(setting.local_crops)]
        training.epoch(step, [(views, None)], by_step)
    return losses


class _Schedule:
    """Values of a schedule, as numbers that its code may index."""

    def __init__(self, values: Any) -> None:
        self.values = [float(value) for value in values]

    def __getitem__(self, step: int) -> float:
        return self.values[step]


def _compare_schedules(config: TrainConfig, by_step: tuple[_Schedule, ...]) -> None:
    for step in range(config.steps):
        own = schedules(config, step)
        for mine, theirs in zip(
            (own.learning_rate, own.weight_decay, own.momentum), by_step, strict=True
        ):
            if not math.isclose(mine, theirs[step], rel_tol=1e-9, abs_tol=1e-15):
                print(f"schedules differ at step {step}: ours {mine}, original {theirs[step]}")


def main(arguments: list[str] | None = None) -> int:
    """Run both, print every step, and return 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--original", metavar="PATH", help="needed but for --crops")
    parser.add_argument(
        "--crops", type=int, metavar="N", help="instead, compare N crops of each kind"
    )
    parser.add_argument("--setting", choices=SETTINGS, help="instead of a small one")
    parser.add_argument("--batch", type=int, help="images a step")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args(arguments)
    if given.crops:
        from benchmarks.crop_statistics import compare

        print(compare(given.original, given.crops))
        return 0
    if given.original is None:
        parser.error("--original PATH is needed to compare losses")
    setting = SETTINGS[given.setting] if given.setting else PARITY
    if given.batch:
        setting = dataclasses.replace(setting, batch=given.batch)
    torch.set_num_threads(2)
    config = configuration(setting, given.steps)
    mine = run_ours(config, setting)
    theirs = run_original(given.original, config, setting)
    print(f"{setting.name}, batch {setting.batch}, float32")
    print("step          ours      original    relative difference")
    worst = 0.0
    for step, (own, other) in enumerate(zip(mine, theirs, strict=True)):
        difference = abs(own - other) / abs(other)
        worst = max(worst, difference)
        print(f"{step:4d}  {own:12.8f}  {other:12.8f}    {difference:.2e}")
    print(f"largest {worst:.2e}, limit {LIMIT:.0e}: {'agrees' if worst <= LIMIT else 'DIFFERS'}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
