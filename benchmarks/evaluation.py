"""How much memory and time do k-NN and the linear probe of very many images take?

    python -m benchmarks.evaluation [--images 20000] [--queries 1000] [--width 768] [--blocks 4]

Features of one token are made up, not computed: of each class a centre, and much noise. They go
through the temporary files of an evaluation, so their folder (TMPDIR) needs 4 bytes a number: 15
GiB for 1,281,167 images of four blocks of a ViT-B. After each part come its seconds and the most
memory that this process ever took, interpreter and libraries included.
"""

import argparse
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.config import EvaluationConfig
from trainers.evaluation.knn import accuracy, knn_right
from trainers.evaluation.linear_probe import accuracy_of_all, linear_right
from trainers.evaluation.rows import Joined, Rows
from trainers.system.world import World

BATCH = 256
NOISE = 4.0
"""Deviation of a feature; that of the centres of classes is 1."""


@dataclass(frozen=True, kw_only=True)
class Took:
    """What one part took."""

    what: str
    seconds: float
    peak_gib: float
    """that this process ever took of the machine's memory"""
    found: str


def features(centres: list[Tensor], labels: Tensor, world: World, seed: int) -> list[Rows]:
    """Rows of images of these labels, one for each of `centres` [classes, D]."""
    generator = torch.Generator().manual_seed(seed)
    found = [Rows(of_classes.shape[1], world.device) for of_classes in centres]
    for part in labels.split(BATCH):
        for rows, of_classes in zip(found, centres, strict=True):
            noise = torch.randn(len(part), rows.width, generator=generator)
            rows.add((of_classes[part] + NOISE * noise).to(world.device))
    return found


def took(
    world: World, *, images: int, queries: int, width: int, blocks: int, classes: int
) -> Iterator[Took]:
    """Each part as it ends; sizes as on the command line."""
    since = time.perf_counter()

    def done(what: str, found: str) -> Took:
        nonlocal since
        now = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        ended = Took(what=what, seconds=now - since, peak_gib=peak, found=found)
        since = now
        return ended

    yield done("start", "")
    knobs = EvaluationConfig()
    generator = torch.Generator().manual_seed(0)
    widths = (width * (blocks - 1), width)
    centres = [torch.randn(classes, wide, generator=generator) for wide in widths]
    known, asked = (torch.arange(count) % classes for count in (images, queries))
    bank, held_out = features(centres, known, world, 1), features(centres, asked, world, 2)
    yield done("features", f"{4 * images * sum(widths) / 2**30:.1f} GiB of the bank")

    known, asked = known.to(world.device), asked.to(world.device)
    right = knn_right(
        bank[-1],
        known,
        torch.cat(list(held_out[-1])),
        asked,
        neighbours=knobs.knn_neighbours,
        temperature=knobs.knn_temperature,
        world=world,
    )
    yield done("k-NN", f"top-1 {accuracy(right):.3f}")
    right = linear_right(
        Joined(bank),
        known,
        Joined(held_out),
        asked,
        penalty=knobs.linear_penalty,
        world=world,
    )
    yield done("linear probe", f"top-1 {accuracy_of_all(right, world):.3f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000, help="of the bank")
    parser.add_argument("--queries", type=int, default=1_000, help="held-out images")
    parser.add_argument("--width", type=int, default=768, help="features of a block")
    parser.add_argument("--blocks", type=int, default=4, help="that the linear probe sees")
    parser.add_argument("--classes", type=int, default=1_000, help="of the images")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    given = vars(parser.parse_args(arguments))
    torch.set_num_threads(given.pop("threads"))
    for one in took(World.alone(), **given):
        print(
            f"{one.what:<12} {one.seconds:>8.1f} s  peak {one.peak_gib:6.2f} GiB  {one.found}",
            flush=True,
        )


if __name__ == "__main__":
    main()
