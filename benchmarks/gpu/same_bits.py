"""Equal runs give equal bits: twice, and when one is resumed in the middle."""

from typing import Any

import torch

from benchmarks import ours
from benchmarks.gpu.record import Part, goal
from benchmarks.gpu.task import Task
from benchmarks.pictures import photographs
from benchmarks.setting import Setting

STEPS = 6
BATCH = 16
IMAGES = 64


def run(task: Task, part: Part) -> None:
    """Three runs of each of some configurations; deterministic algorithms only."""
    ours.strictly_reproducible(task.threads)
    photographs(task.scratch / "few", IMAGES)
    part.note("Deterministic algorithms are strictly on: an operation without one raises.")
    cases: list[tuple[Setting, dict[str, Any]]] = []
    for case in ((task.small, {}), (task.large, {}), (task.large, task.fast)):
        if case not in cases:  # at toy size they are the same
            cases.append(case)
    for setting, change in cases:
        _three_runs(task, part, setting, change)


def _three_runs(task: Task, part: Part, setting: Setting, change: dict[str, Any]) -> None:
    config = ours.configuration(
        setting,
        {"batch_size": min(BATCH, setting.batch), "data.source": str(task.scratch / "few")}
        # At full rate, so that every step leaves its trace in the weights.
        | {"optimizer.warmup_steps": 0}
        | change,
    )
    cache, half = task.scratch / "cache", STEPS // 2
    first = ours.Run(config, task.device, cache)
    first.advance(half)
    saved = first.save(task.scratch / "middle")
    first.advance(half)
    seen, chain = first.digest(), first.state.chain
    del first
    what = f"{setting.name}, {setting.precision}" + "".join(f", {name}" for name in change)
    found = {}
    for name in ("twice", "resumed"):
        again = ours.Run(config, task.device, cache)
        if name == "resumed":
            again.load(saved)
        again.advance(STEPS - again.state.step)
        found[name] = again.digest() == seen and again.state.chain == chain
        del again
        if task.device == "cuda":
            torch.cuda.empty_cache()
    part.figure(what, found)
    for name, equal in found.items():
        part.row(
            f"{what}, {STEPS} steps, {name}",
            "equal bits" if equal else "**other bits**",
            goal=goal("equal", met=equal),
        )
