"""The GPU makes of the same images what the CPU makes of them."""

import dataclasses

import torch

from benchmarks import our_runs, ours
from benchmarks.gpu.record import Part, goal
from benchmarks.gpu.task import Task
from benchmarks.pictures import photographs
from trainers.data.cut import Images
from trainers.system.world import make_reproducible

IMAGES = 16
"""Images a batch."""

CLOSE = 1e-4
"""Largest relative difference of a loss or a norm."""


def run(task: Task, part: Part) -> None:
    """Decoded images, crops of the same images, and one step in fp32 on the same crops."""
    make_reproducible(task.threads)
    images = min(IMAGES, task.large.batch)
    folder = task.scratch / f"pictures-{images}"
    if not folder.exists():
        photographs(folder, 16, copies=-(-2 * images // 16))
    config = ours.configuration(
        task.large,
        {"batch_size": images, "data.source": str(folder), "compute.precision": "fp32"}
        | ours.ORIGINALS,
    )
    if task.device == "cpu":
        part.note("both sides are the CPU here.")
    cpu, gpu = (
        our_runs.Run(config, device, task.scratch / "cache") for device in ("cpu", task.device)
    )
    pixels, *names = cpu.reader.pixels(0)
    decoded, *_ = gpu.reader.pixels(0)
    _compare(part, "images as decoded", decoded, pixels)
    crops = cpu.reader.batch(pixels, *names)
    moved = gpu.reader.moved(pixels)
    found = gpu.reader.batch(moved, *names).views
    for kind in ("global_crops", "local_crops"):
        what = f"{kind.replace('_', ' ')} of the same images"
        _compare(part, what, getattr(found, kind), getattr(crops.views, kind))
    _equal(part, "chain of the same images", found.digest.cpu(), crops.views.digest)
    for workers in (2, 4):
        share = images // workers
        shares = [slice(start, start + share) for start in range(0, images, share)]
        digests = [
            gpu.reader.batch(moved[mine], *(name[mine] for name in names)).views.digest
            for mine in shares
        ]
        whole = torch.cat(digests).cpu()
        _equal(part, f"chain of {workers} workers", whole, crops.views.digest)
    there = dataclasses.replace(crops, views=crops.views.on(torch.device(task.device)))
    mine, theirs = gpu.see(there), cpu.see(crops)
    for name in ("loss", "gradient_norm"):
        _close(part, name, getattr(mine, name), getattr(theirs, name))


def _compare(part: Part, what: str, found: Images, expected: Images) -> None:
    """How many images or crops differ from the CPU's, how many values, and by how many levels."""
    apart = [
        (one.cpu().int() - other.cpu().int()).abs()
        for one, other in zip(found, expected, strict=True)
    ]
    values = sum(int((one > 0).sum()) for one in apart) / sum(one.numel() for one in apart)
    rows, largest = sum(bool(one.any()) for one in apart), max(int(one.max()) for one in apart)
    part.figure(what, {"rows": rows, "of": len(apart), "values": values, "largest": largest})
    shown = f"{rows} of {len(apart)} and {values:.2%} of values differ, by up to {largest} levels"
    part.row(what, "equal bits" if not rows else shown, "CPU")


def _equal(part: Part, what: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    same = torch.equal(found, expected)
    part.figure(what, same)
    part.row(what, "equal" if same else "**differs**", "CPU", goal=goal("equal", met=same))


def _close(part: Part, name: str, found: float, expected: float) -> None:
    apart = abs(found - expected) / abs(expected)
    what = f"{name.replace('_', ' ')} of a step in fp32, the same crops"
    part.figure(what, {"found": found, "cpu": expected, "apart": apart})
    limit = goal(f"≤ {CLOSE:.0e}", met=apart <= CLOSE)
    part.row(what, f"{found:.6f}", f"{expected:.6f}, CPU", f"{apart:.1e} apart", limit)
