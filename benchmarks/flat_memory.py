"""Does memory stay flat on a set that is larger than what is kept decoded?

    python benchmarks/flat_memory.py [--images 200000] [--batches 800] [--steps 100]

Writes a synthetic set of small JPEGs through `dinolab ingest`'s own writer into a temporary folder,
opens it, reads random batches with prefetching, and trains a tiny model on it. Prints resident
memory as it goes: RssAnon is this process's own; RssFile are mapped pages, which belong to the page
cache and are given back when anyone needs memory. On 2 cores the whole takes about five minutes.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainers.config import DataConfig, override
from trainers.config.recipe import recipe
from trainers.data.image_set import ImageSet, open_images
from trainers.data.ingest import ingest
from trainers.data.prefetch import prefetch
from trainers.data.sources.source import Item
from trainers.system.storage import locate
from trainers.system.world import World
from trainers.training.loop import train

SIDE, BATCH = 64, 128


class Synthetic:
    """Soft blobs of colour, each image another, as JPEGs of about 1.5 KB."""

    def __init__(self, images: int) -> None:
        self.name = f"synthetic {images}"
        self._images = images

    def __len__(self) -> int:
        return self._images

    def fingerprint(self, places: range) -> str:
        """The places alone: the images follow from them."""
        return f"{self.name} {places.start} {places.stop}"

    def items(self, places: range) -> Iterator[Item]:
        """Images drawn from their places."""
        for place in places:
            colours = np.random.default_rng(place).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            stream = io.BytesIO()
            Image.fromarray(colours).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(
                stream, "JPEG", quality=80
            )
            yield Item(name=f"{place}.jpg", label="", split="", image=stream.getvalue())


def resident() -> dict[str, int]:
    """RssAnon and RssFile of this process, MiB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(fields[name].split()[0]) // 1024 for name in ("RssAnon", "RssFile")}


def show(what: str, done: int, since: float, images: int) -> None:
    """One line: how far, what memory, how fast."""
    memory = resident()
    speed = images / (time.perf_counter() - since)
    print(
        f"{what:>6} {done:>6}  RssAnon {memory['RssAnon']:>5} MiB  "
        f"RssFile {memory['RssFile']:>5} MiB  {speed:>7.0f} images/s",
        flush=True,
    )


class Shown:
    """A reporter that prints memory instead of metrics."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        """See trainers.training.reporter.Reporter."""
        if checkpoint is None:
            show("train", step, self._since, step * BATCH)


def read(images: ImageSet, batches: int) -> None:
    """Read random batches, one ahead."""
    places = torch.randint(
        len(images), (batches, BATCH), generator=torch.Generator().manual_seed(0)
    )
    since = time.perf_counter()
    for batch, pixels in enumerate(
        prefetch(lambda step: images.pixels(places[step]), range(batches), ahead=2), start=1
    ):
        assert pixels.shape == (BATCH, 3, SIDE, SIDE)
        if batch % max(1, batches // 10) == 0:
            show("read", batch, since, batch * BATCH)


def main() -> None:
    """Make the set, read it, train on it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--batches", type=int, default=800)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        since = time.perf_counter()

        def progress(done: int, total: int) -> None:
            if done % max(1, total // 5) == 0:
                show("ingest", done, since, done)

        home = locate(f"{folder}/set")
        manifest = ingest(Synthetic(given.images), home, progress)
        size = sum(size for _, _, size in manifest.parts) / 2**20
        print(f"{manifest.images} images in {len(manifest.parts)} parts, {size:.0f} MiB")
        data = DataConfig(source=f"{folder}/set", image_size=SIDE, test_share=0.002)
        since = time.perf_counter()
        images = open_images(data, None)
        print(f"opened in {time.perf_counter() - since:.2f} s")
        show("open", 0, since, 0)
        read(images, given.batches)
        config = override(
            recipe("digits_tiny"),
            {
                "data.test_share": data.test_share,
                "data.image_size": SIDE,
                "batch_size": BATCH,
                "steps": given.steps,
                "log_every": max(1, given.steps // 5),
                "evaluation.every": given.steps,
            },
        )
        train(
            config,
            images=images,
            world=World.alone(),
            reporter=Shown(),
            checkpoints=Path(folder, "checkpoint"),
            resume_from=None,
        )


if __name__ == "__main__":
    main()
