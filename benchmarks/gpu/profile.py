"""One step under PyTorch's profiler: its dearest kernels, its launches, and its host waits."""

import warnings
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import ours
from benchmarks.gpu.record import Part
from benchmarks.gpu.task import Task

DEAREST = 10


def run(task: Task, part: Part) -> None:
    """Without our speed knobs, then with the best ones."""
    variants: list[dict[str, Any]] = [{}]
    if task.best.knobs:
        variants.append(task.best.knobs)
    for change in variants:
        _profile(task, part, change)


def _profile(task: Task, part: Part, change: dict[str, Any]) -> None:
    words = task.words(change)
    advance = ours.make_step(task.large, task.device, change, task.threads)
    on_gpu = task.device == "cuda"
    advance(3)
    waits = _waits(advance) if on_gpu else 0
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities) as seen:
        advance(1)
        if on_gpu:
            torch.cuda.synchronize()
    trace = f"trace-{words.replace(' + ', '-').replace(' ', '-')}.json.gz"
    seen.export_chrome_trace(str(task.folder / trace))
    averages = seen.key_averages()
    launches = sum(one.count for one in averages if "LaunchKernel" in one.key)
    graphs = sum(one.count for one in averages if "GraphLaunch" in one.key)
    copies = sum(one.count for one in averages if "Memcpy DtoH" in one.key)
    part.figure(words, {"launches": launches, "graphs": graphs, "waits": waits, "to_host": copies})
    part.row(
        f"one step, {words}",
        f"{launches:,} launches, {graphs} of graphs, {waits} host waits, {copies} copies to the "
        "host",
    )
    kernels = _kernels(averages, on_gpu)
    total = sum(time for _, time, _ in kernels)
    part.figure(f"kernels: {words}", kernels[: 3 * DEAREST])
    part.listing(
        f"Dearest {'kernels' if on_gpu else 'operations'} of one step, {words}, of "
        f"{total / 1e3:.1f} ms in all (`{trace}`):",
        ("kernel", "ms", "share", "times"),
        (
            (f"`{name[:100]}`", f"{time / 1e3:.2f}", f"{time / total:.1%}", str(count))
            for name, time, count in kernels[:DEAREST]
        ),
    )


def _kernels(averages: Any, on_gpu: bool) -> list[tuple[str, float, int]]:
    """Names, microseconds and numbers of what ran, the dearest first; on a CPU, operations."""
    found = []
    for one in averages:
        if one.is_user_annotation or (on_gpu and one.device_type.name != "CUDA"):
            continue
        time = one.self_device_time_total if on_gpu else one.self_cpu_time_total
        found.append((one.key, float(time), int(one.count)))
    return sorted(found, key=lambda one: -one[1])


def _waits(advance: Any) -> int:
    """How often the host waits for the device in one step, as CUDA's allocator and copies say."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            advance(1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in said)
