"""JPEGs of 500 × 375 pixels: decoded, cut into crops, and trained on."""

import os
import shutil
from pathlib import Path

from benchmarks import original, ours
from benchmarks.command import no_peer
from benchmarks.contest import OURS, Contender, Outcome, ratio
from benchmarks.gpu.record import Part, goal
from benchmarks.gpu.task import Task
from benchmarks.pictures import photographs

DIFFERENT, COPIES = 256, 16
"""Pictures, and times that each is written under another name: decoding costs the same."""

SHARE = 0.9
"""Goal: end to end, of what a step alone makes."""


def run(task: Task, part: Part) -> None:
    """Disk to crops on the device, then disk to weights."""
    folder = task.scratch / "many"
    different, copies = (2 * task.large.batch, 2) if task.toy else (DIFFERENT, COPIES)
    _pictures(folder, different, copies)
    part.note(
        f"{different * copies:,} JPEGs of 500 × 375, {different} different ones, from the page "
        f"cache; {os.cpu_count()} CPU cores."
    )
    _crops(task, part, folder)
    _disk_to_weights(task, part, folder)


def _pictures(folder: Path, different: int, copies: int) -> None:
    photographs(folder, different)
    for path in sorted(folder.glob("*/*.jpg")):
        for number in range(1, copies):
            shutil.copy(path, path.with_stem(f"{path.stem}-{number}"))


def _crops(task: Task, part: Part, folder: Path) -> None:
    setting, cache = task.large, str(task.scratch / "cache")

    def mine(name: str, device: str, what: str) -> Contender:
        arguments = (setting, device, str(folder), cache, 256, what)
        return Contender(name=name, make=ours.make_pipeline, arguments=arguments)

    contenders = [mine(OURS, task.device, "all")]
    if not task.toy:
        contenders += [
            mine("decode alone", task.device, "decode"),
            mine("crops alone", task.device, "augment"),
            mine("all on the CPU", "cpu", "all"),
        ]
    if task.original:
        arguments = (task.original, setting, task.device, str(folder), task.threads)
        contenders.append(
            Contender(name=original.NAME, make=original.make_pipeline, arguments=arguments)
        )
    else:
        part.note(no_peer(original.NAME, "--original PATH") + ".")
    done: dict[str, Outcome] = {}
    for one in task.turns(contenders):
        if one.failure:
            part.fail(f"disk to crops, {one.name}", one.failure)
        else:
            done[one.name] = one
            part.figure(f"crops: {one.name}", one.rate)
    peer = done.get(original.NAME)
    for name, one in done.items():
        if name != original.NAME:
            part.row(
                "disk to crops" + ("" if name == OURS else f", {name}"),
                f"{one.rate:,.0f} images/s",
                f"{peer.rate:,.0f} images/s ({task.threads} workers)" if peer else "",
                str(ratio(one, peer)) if peer else "",
            )


def _disk_to_weights(task: Task, part: Part, folder: Path) -> None:
    setting = task.large
    peer = None
    if task.original:
        arguments = (task.original, setting, task.device, str(folder), task.threads)
        (outcome,) = task.turns(
            [Contender(name=original.NAME, make=original.make_training, arguments=arguments)]
        )
        if outcome.failure:
            part.fail("disk to weights, original", outcome.failure)
        else:
            peer = outcome.rate
            part.figure("disk_to_weights: original", peer)
    flow = ours.disk_to_weights(
        setting,
        task.device,
        str(folder),
        task.scratch,
        task.best.knobs,
        seconds=0.2 if task.toy else min(20.0, task.left / 4),
        threads=task.threads,
    )
    share = flow.rate / flow.pure
    part.figure("disk_to_weights", {"rate": flow.rate, "pure": flow.pure, "share": share})
    part.figure("metrics", flow.metrics)
    part.row(
        "disk to weights",
        f"{flow.rate:,.0f} images/s",
        f"{peer:,.0f} images/s ({task.threads} workers, not in turns)" if peer else "",
        f"{flow.rate / peer:.2f}×" if peer else "",
    )
    part.row(
        "the same beside a step alone",
        f"{share:.0%} of {flow.pure:,.0f} images/s",
        goal=goal(f"≥ {SHARE}", met=share >= SHARE),
    )
    for name, value in flow.metrics.items():
        part.row(name, f"{value:.4g}")
