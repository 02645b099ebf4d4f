"""How fast a run goes, and what it waits for: numbers of the machine, not of the model."""

import resource
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

from trainers.config import TrainConfig
from trainers.config.stages import small_steps
from trainers.system.world import World
from trainers.training.operations import operations

T = TypeVar("T")

PEAK: dict[str, float] = {
    "A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12,
    "L40S": 362e12, "L4": 121e12, "V100": 125e12, "T4": 65e12,
}  # fmt: skip
"""Dense bf16 (fp16 on V100 and T4) operations a second that data sheets promise, by a word of the
card's name."""

DESCRIPTIONS = {
    "time/step_s": "mean time of an update since the last record; seconds",
    "time/images_per_s": "images of all workers a second, since the last record",
    "time/data_wait": "share of that time in which the first worker waited for images; 0 to 1",
    "memory/peak_gib": "most memory that the first worker ever held, of the GPU's where there is "
    "one; GiB",
}

ON_KNOWN_CARDS = {
    "time/share_of_peak": "operations a second over what the cards' data sheet promises; 0 to 1, "
    "on GPUs that are known alone",
}


class Pace:
    """Measures the time between records."""

    def __init__(self, config: TrainConfig, world: World, classes: int, step: int) -> None:
        self.images = config.batch_size
        self.device = world.device
        self.step, self.waited, self.started = step, 0.0, time.monotonic()
        self.small_steps = small_steps(config)
        self.shares_of_peak = (0.0, 0.0)
        """that an image a second is with small crops, and with full ones"""
        if (peak := peak_of(world.device)) is not None:
            counted, peak = operations(config, classes), peak * world.size
            self.shares_of_peak = counted.small / peak, counted.full / peak

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """`batches`, with the time noted that each lets one wait."""
        iterator = iter(batches)
        while True:
            asked = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.waited += time.monotonic() - asked
            yield batch

    def metrics(self, step: int) -> dict[str, float]:
        """By name, of the updates since the last record, after `step` of them in all."""
        seconds, steps = time.monotonic() - self.started, step - self.step
        images_per_s = steps * self.images / seconds
        metrics = {
            "time/step_s": seconds / steps,
            "time/images_per_s": images_per_s,
            "time/data_wait": min(self.waited / seconds, 1.0),
            "memory/peak_gib": peak_memory(self.device) / 2**30,
        }
        if any(self.shares_of_peak):
            small = max(0, min(step, self.small_steps) - self.step) / steps
            of_small, of_full = self.shares_of_peak
            share_of_peak = small * of_small + (1 - small) * of_full
            metrics["time/share_of_peak"] = images_per_s * share_of_peak
        return metrics

    def restart(self, step: int) -> None:
        """Begin anew after a record at `step`, so that evaluations do not count."""
        self.step, self.waited, self.started = step, 0.0, time.monotonic()


def peak_of(device: torch.device) -> float | None:
    """Operations a second that the card promises, None where it is none that PEAK knows."""
    if device.type != "cuda":
        return None
    words = torch.cuda.get_device_name(device).replace("-", " ").split()
    return next((peak for name, peak in PEAK.items() if name in words), None)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process held at the most: of the GPU, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
