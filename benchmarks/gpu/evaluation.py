"""k-NN at the size of ImageNet, on synthetic features."""

import time

import torch

from benchmarks.gpu.record import Part
from benchmarks.gpu.task import Task
from trainers.evaluation.knn import knn_accuracy

IMAGES, HELD_OUT, WIDTH, CLASSES = 1_281_167, 50_000, 384, 1000


def run(task: Task, part: Part) -> None:
    """Seconds and peak memory."""
    images, asked = (2000, 100) if task.toy else (IMAGES, HELD_OUT)
    generator = torch.Generator(task.device).manual_seed(0)

    def features(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(CLASSES, (count,), generator=generator, device=task.device)
        noise = torch.randn(count, WIDTH, generator=generator, device=task.device)
        return noise, labels

    bank, labels = features(images)
    queries, right = features(asked)
    on_gpu = task.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    knn_accuracy(bank, labels, queries, right, neighbours=20, temperature=0.07)
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
    part.figure("knn", {"seconds": seconds, "peak_gib": peak})
    part.row(
        f"k-NN of {asked:,} images among {images:,}, {WIDTH} features",
        f"{seconds:.1f} s, {peak:.1f} GiB",
    )
