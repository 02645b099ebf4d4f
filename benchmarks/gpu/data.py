"""JPEGs of 500 × 375 pixels: decoded, cut into crops, and trained on."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks import original, our_runs, ours
from benchmarks.command import no_peer
from benchmarks.contest import OURS, Advance, Contender
from benchmarks.gpu.record import Part, goal
from benchmarks.gpu.task import Task
from benchmarks.pictures import photographs

DIFFERENT, COPIES = 256, 16
"""Pictures, and how often each is there under another name: decoding costs the same."""

WORKERS = 10
"""Of the original's loader, as its script has by default; each holds two batches ready."""

SHARE = 0.9
"""Goal: end to end, of what a step alone makes."""


def run(task: Task, part: Part) -> None:
    """Disk to weights, disk to crops on the device, and the original at both."""
    task.prepare()
    folder = task.scratch / "many"
    different, copies = (2 * task.large.batch, 2) if task.toy else (DIFFERENT, COPIES)
    photographs(folder, different, copies=copies)
    part.note(
        f"{different * copies:,} JPEGs of 500 × 375, {different} different ones, from the page "
        f"cache; {os.cpu_count()} CPU cores."
    )
    weights = _disk_to_weights(task, part, folder)
    crops = _crops(task, part, folder)
    if not task.original:
        part.note(no_peer(original.NAME, "--original PATH") + ".")
        return
    _beside_original(task, part, folder, "disk to weights", original.make_training, weights)
    _beside_original(task, part, folder, "disk to crops", original.make_pipeline, crops)


def _crops(task: Task, part: Part, folder: Path) -> float:
    """Images a second on the device, 0 if it failed; with rows of what they are made of."""
    setting, cache = task.large, str(task.scratch / "cache")

    def mine(name: str, device: str, what: str) -> Contender:
        arguments = (setting, device, str(folder), cache, 0, what)
        return Contender(name=name, make=ours.make_pipeline, arguments=arguments)

    contenders = [mine(OURS, task.device, "all")]
    if not task.toy:
        contenders += [
            mine("decoding alone", task.device, "decode"),
            mine("crops alone", task.device, "augment"),
            dataclasses.replace(mine("all on the CPU", "cpu", "all"), steps=1),
        ]
    rate = 0.0
    for one in task.turns(contenders, rounds=3, steps=3, warmup=2):
        if one.failure:
            part.fail(f"disk to crops, {one.name}", one.failure)
            continue
        part.figure(f"disk to crops, {one.name}", one.rate)
        what = "disk to crops" + ("" if one.name == OURS else f", {one.name}")
        part.row(what, f"{one.rate:,.0f} images/s")
        rate = one.rate if one.name == OURS else rate
    return rate


def _disk_to_weights(task: Task, part: Part, folder: Path) -> float:
    """Images a second, by the loop itself."""
    flow = our_runs.disk_to_weights(
        task.large,
        task.device,
        str(folder),
        task.scratch,
        task.best.knobs,
        seconds=0.2 if task.toy else min(15.0, task.left / 5),
        threads=task.threads,
    )
    share = flow.rate / flow.pure
    part.figure("disk to weights", {"rate": flow.rate, "pure": flow.pure, "share": share})
    part.figure("metrics", flow.metrics)
    part.row("disk to weights", f"{flow.rate:,.0f} images/s")
    part.row(
        "the same beside a step alone",
        f"{share:.0%} of {flow.pure:,.0f} images/s",
        goal=goal(f"≥ {SHARE}", met=share >= SHARE),
    )
    for name, value in flow.metrics.items():
        part.row(f"`{name}`", f"{value:.4g}")
    return flow.rate


def _beside_original(
    task: Task, part: Part, folder: Path, what: str, make: Callable[..., Advance], mine: float
) -> None:
    """The original at the same work; not in turns, since its workers have much ready by then."""
    workers = min(WORKERS, task.threads)
    arguments = (task.original, task.large, task.device, str(folder), workers)
    contender = Contender(name=original.NAME, make=make, arguments=arguments, steps=2 * workers)
    (one,) = task.turns([contender], rounds=1, warmup=workers)
    if one.failure:
        part.fail(f"{what}, {one.name}", one.failure)
        return
    part.figure(f"{what}, {one.name}", one.rate)
    part.row(
        f"{what}, beside the original with {workers} workers",
        f"{mine:,.0f} images/s",
        f"{one.rate:,.0f} images/s",
        f"{mine / one.rate:.2f}×",
    )
