"""Equal runs give equal bits: twice, and when one is resumed in the middle."""

import dataclasses
from typing import Any

import torch

from benchmarks import our_runs, ours
from benchmarks.gpu.record import Part, goal
from benchmarks.gpu.task import Task
from benchmarks.pictures import photographs
from benchmarks.setting import Setting
from trainers.system.world import make_reproducible

STEPS = 6
BATCH = 16


def run(task: Task, part: Part) -> None:
    """A small model in fp32 and the large one in its precision; deterministic algorithms only."""
    part.note("deterministic algorithms are strictly on: an operation without one raises.")
    three_runs(task, part, task.small, {})
    if task.large != task.small:  # as they are at toy size
        small_batch = dataclasses.replace(task.large, batch=BATCH)
        three_runs(task, part, small_batch, {})


def three_runs(task: Task, part: Part, setting: Setting, change: dict[str, Any]) -> None:
    """One run, its repetition, and one that goes on from a checkpoint in the middle of the first.

    Compared are hashes of all weights, moments and centers, and the chain of all crops.
    """
    make_reproducible(task.threads)
    folder = task.scratch / f"pictures-{setting.batch}"
    if not folder.exists():
        photographs(folder, 16, copies=-(-2 * setting.batch // 16))
    config = ours.configuration(
        setting,
        # At full rate, so that every step leaves its trace in the weights.
        {"data.source": str(folder), "optimizer.warmup_steps": 0} | ours.ORIGINALS | change,
    )
    cache, half = task.scratch / "cache", STEPS // 2
    first = our_runs.Run(config, task.device, cache)
    first.advance(half)
    saved = first.save(task.scratch / "middle")
    first.advance(STEPS - half)
    seen, chain = first.digest(), first.state.chain
    del first
    what = f"{setting.name}, batch {setting.batch}, {setting.precision}, {task.words(change)}"
    for name in ("twice", "resumed"):
        again = our_runs.Run(config, task.device, cache)
        if name == "resumed":
            again.load(saved)
        again.advance(STEPS - again.state.step)
        weights, crops = again.digest() == seen, again.state.chain == chain
        part.figure(f"{what}, {name}", {"weights": weights, "chain": crops})
        part.row(
            f"{what}, {STEPS} steps, {name}",
            f"weights {'equal' if weights else '**differ**'}, "
            f"chain {'equal' if crops else '**differs**'}",
            goal=goal("equal", met=weights and crops),
        )
        del again
        if task.device == "cuda":
            torch.cuda.empty_cache()
