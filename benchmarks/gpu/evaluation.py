"""k-NN and linear probe of synthetic features, at the size of ImageNet if the time allows."""

import dataclasses

import torch

from benchmarks.evaluation import took
from benchmarks.gpu.record import Part
from benchmarks.gpu.task import Task
from benchmarks.ours import world_on

IMAGES, HELD_OUT, WIDTH, BLOCKS, CLASSES = 1_281_167, 50_000, 384, 4, 1000

WHOLE = 150.0
"""Seconds that the whole size takes, about; with less left, a tenth of it."""


def run(task: Task, part: Part) -> None:
    """Seconds and peak memory of each, of four blocks of a ViT-S."""
    torch.set_num_threads(task.threads)
    part_of = 1 if task.left > WHOLE else 10
    images, queries, width, classes = IMAGES // part_of, HELD_OUT // part_of, WIDTH, CLASSES
    if task.toy:
        images, queries, width, classes = 500, 100, 16, 10
    size = {"width": width, "blocks": BLOCKS, "classes": classes}
    for one in took(world_on(task.device), images=images, queries=queries, **size):
        if not one.found:
            continue
        memory = f"{one.peak_gib:.1f} GiB of the machine"
        figures = dataclasses.asdict(one)
        if task.device == "cuda":
            figures["card_gib"] = torch.cuda.max_memory_allocated() / 2**30
            memory += f", {figures['card_gib']:.1f} of the card"
        part.figure(one.what, figures)
        part.row(
            f"{one.what}, {queries:,} held out of {images:,}",
            f"{one.seconds:.1f} s, at most {memory}; {one.found}",
        )
