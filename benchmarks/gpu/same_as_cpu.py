"""The GPU makes of the same images what the CPU makes of them."""

import torch
from torch import Tensor

from benchmarks import ours
from benchmarks.gpu.record import Part, goal
from benchmarks.gpu.task import Task
from benchmarks.pictures import photographs

IMAGES = 16
"""Images a batch."""


def run(task: Task, part: Part) -> None:
    """Squares, crops, and the loss of one step in fp32, on both."""
    ours.strictly_reproducible(task.threads)
    images = min(IMAGES, task.large.batch)
    photographs(task.scratch / "few", 4 * images)
    config = ours.configuration(
        task.large,
        {
            "batch_size": images,
            "data.source": str(task.scratch / "few"),
            "compute.precision": "fp32",
        },
    )
    runs = {
        device: ours.Run(config, device, task.scratch / "cache") for device in ("cpu", task.device)
    }
    if task.device == "cpu":
        part.note("Both sides are the CPU here.")
    cpu, gpu = runs["cpu"].reader, runs[task.device].reader
    pixels, places, epochs = cpu.pixels(0)
    on_gpu, _, _ = gpu.pixels(0)
    _compare(part, "images decoded and resampled", pixels, on_gpu)

    of_cpu = cpu.batch(pixels, places, epochs)
    of_gpu = gpu.batch(pixels.to(task.device), places, epochs)
    for kind in ("global_crops", "local_crops"):
        mine, theirs = (getattr(batch.views, kind) for batch in (of_cpu, of_gpu))
        _compare(part, f"{kind.replace('_', ' ')} of the same pixels", mine, theirs)
    same = torch.equal(of_cpu.views.digest, of_gpu.views.digest.cpu())
    part.figure("chain_equal", same)
    part.row(
        "chain of the same pixels",
        "equal" if same else "**other**",
        goal=goal("equal", met=same),
    )
    _parts_of_a_batch(part, gpu, task.device)

    step = {}
    for device, one in runs.items():
        done = one.advance(1)
        step[device] = {"loss": done.loss, "gradient_norm": done.gradient_norm}
    part.figure("step", step)
    for name in ("loss", "gradient_norm"):
        mine, theirs = step[task.device][name], step["cpu"][name]
        apart = abs(mine - theirs) / abs(theirs)
        part.row(
            f"{name.replace('_', ' ')} of a step in fp32, each its own decoding",
            f"{mine:.6f}",
            f"{theirs:.6f} (CPU)",
            f"{apart:.1e} apart",
            goal("≤ 1e-3", met=apart <= 1e-3),
        )


def _compare(part: Part, what: str, mine: Tensor, theirs: Tensor) -> None:
    """How much of uint8 `theirs` [n, …] differs from `mine`, and by how many levels."""
    apart = (mine.cpu().int() - theirs.cpu().int()).abs().flatten(1)
    rows, values = (apart > 0).any(1).float().mean().item(), (apart > 0).float().mean().item()
    largest = int(apart.max())
    part.figure(what, {"rows": rows, "values": values, "largest": largest})
    shown = f"{rows:.0%} of them and {values:.2%} of values differ, by up to {largest} levels"
    part.row(what, "equal" if not largest else shown, "CPU")


def _parts_of_a_batch(part: Part, reader: ours.Reader, device: str) -> None:
    """Crops must not depend on how many images a worker has beside them."""
    pixels, places, epochs = reader.pixels(0)
    whole = reader.batch(pixels, places, epochs).views.digest
    for workers in (2, 4):
        pieces = zip(*(each.chunk(workers) for each in (pixels, places, epochs)), strict=True)
        digests = torch.cat([reader.batch(*piece).views.digest for piece in pieces])
        same = torch.equal(whole, digests)
        part.figure(f"chain_of_{workers}_workers_equal", same)
        part.row(
            f"crops cut in {workers} parts, {device}",
            "equal bits" if same else "**other bits**",
            goal=goal("equal", met=same),
        )
