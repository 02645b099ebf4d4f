"""Attention statistics of a ViT: ours, and timm's AttentionExtract with NumPy, on the same images.

    python -m benchmarks.measure                # ViT-S/16 at 224, 512 images a round
    python -m benchmarks.measure --memory       # ours up to 3,137 tokens: memory linear in tokens
    python -m benchmarks.measure --cadence      # what measuring costs while a study trains

Both sides run the same model with the same random weights, and measure the same: the measures
of attention maps of docs/metrics.md, every head, [CLS] and every patch as queries. Before they
race, their numbers are compared.
"""

import argparse
import functools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks import attention_extract
from benchmarks.contest import OURS, Advance, Contender, Goal, hold, peak_bytes, resident_peak, show
from trainers.adapters.timm_models import open_timm
from trainers.config import TrainConfig
from trainers.config.recipe import recipe
from trainers.data.image_set import ImageSet, open_images
from trainers.evaluation import evaluate as evaluation
from trainers.globality.statistics import AttentionStatistics
from trainers.globality.tokens import Tokens, stratified
from trainers.system.allocator import keep_freed_memory
from trainers.system.world import World
from trainers.training.loop import train
from trainers.training.state import TrainState

MODEL = "vit_small_patch16_224"
LAYERS = (8, 9, 10, 11)
SIZES = ((16, 224), (8, 224), (8, 336), (8, 448))
"""Patch and image sides for `--memory`: 197 to 3,137 tokens."""
TOGETHER = 8
"""Images at once for `--memory`; one is measured before, so that only what more need counts."""


def pictures(side: int, batch: int, device: str = "cpu") -> torch.Tensor:
    """Smooth random images, normalised, [batch, 3, side, side]."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(batch, 3, side // 16, side // 16, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").to(device)


class Measure:
    """Our side: the statistics of a batch, added to those before."""

    def __init__(
        self, name: str, memory: float, image_size: int | None = None, device: str = "cpu"
    ) -> None:
        torch.manual_seed(0)
        self.backbone = open_timm(name, image_size=image_size).to(device)
        self.side = self.backbone.image_size[0]
        side = self.side // self.backbone.patch_size[0]
        tokens = Tokens(
            grid=(side, side),
            has_cls=True,
            registers=0,
            patch_queries=stratified((side, side), 64, torch.device(device)),
            fixed_patch=None,
        )
        self.statistics = AttentionStatistics(tokens, memory=memory)

    def __call__(self, images: torch.Tensor) -> None:
        """Measure a batch."""
        with torch.inference_mode():
            self.backbone(images, observe=self.statistics)


def make_measure(name: str, batch: int, memory: float, device: str = "cpu") -> Advance:
    """Measures `batch` images a step; returns the images done."""
    keep_freed_memory()
    measure = Measure(name, memory, device=device)
    images = pictures(measure.side, batch, device)

    def advance(steps: int) -> float:
        for _ in range(steps):
            measure(images)
        return float(steps * batch)

    return advance


def make_forward(name: str, batch: int, device: str = "cpu") -> Advance:
    """A forward pass that measures nothing: what neither side can go below."""
    keep_freed_memory()
    backbone = Measure(name, 1.0, device=device).backbone
    images = pictures(backbone.image_size[0], batch, device)

    def advance(steps: int) -> float:
        with torch.inference_mode():
            for _ in range(steps):
                backbone(images)
        return float(steps * batch)

    return advance


def compare(
    name: str,
    batch: int,
    memory: float,
    device: str = "cpu",
    layers: tuple[int, ...] = LAYERS,
) -> float:
    """Largest difference of any mean over `layers` of the two sides, on one batch."""
    ours = Measure(name, memory, device=device)
    theirs = attention_extract.Measure(name, device)
    images = pictures(ours.side, batch, device)
    ours(images)
    theirs(images)
    found = ours.statistics.total.metrics(layers)
    means = theirs.means(layers)
    return max(abs(found[f"globality/{name}"] - value) for name, value in means.items())


def _peak(
    make: Callable[[], Measure | attention_extract.Measure], batch: int, pipe: Connection
) -> None:
    torch.set_num_threads(2)
    measure = make()
    images = pictures(measure.side, batch)
    measure(images[:1])  # what libraries allocate once
    idle = resident_peak(reset=True)
    measure(images)
    pipe.send(peak_bytes(idle))


def peak(make: Callable[[], Measure | attention_extract.Measure], batch: int) -> int:
    """Peak bytes beyond the loaded model while a batch is measured in a process of its own."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_peak, args=(make, batch, theirs))
    process.start()
    found: int = mine.recv()
    process.join()
    return found


def show_memory(memory: float) -> None:
    """Print peak memory by number of tokens."""
    from rich.console import Console
    from rich.table import Table

    title = f"Memory, {TOGETHER} images at once"
    table = Table("patch", "image", "tokens", "peak MiB", "KiB a token", title=title)
    for patch, side in SIZES:
        make = functools.partial(Measure, f"vit_small_patch{patch}_224", memory, side)
        tokens, found = (side // patch) ** 2 + 1, peak(make, TOGETHER)
        size = f"{found / 2**20:.0f}", f"{found / 2**10 / tokens / TOGETHER:.1f}"
        table.add_row(str(patch), str(side), f"{tokens:,}", *size)
    Console(width=120).print(table)


def cost(config: TrainConfig, images: ImageSet, *, thorough: bool, device: str = "cpu") -> float:
    """Seconds that measuring globality adds to one evaluation, the least of three."""
    alone = World(rank=0, size=1, device=torch.device(device))

    def now() -> float:
        if alone.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    state = TrainState.fresh(config, alone, len(images.class_names))
    state.teacher.eval()
    took, places = [], images.shuffled(images.test)
    for _ in range(3):
        instruments = evaluation.Globality(state, config, thorough)
        added, done = 0.0, 0
        for crops, draws, identifiers in evaluation.batches(images, places, config, alone.device):
            with torch.no_grad():
                start = now()
                state.teacher(crops, draws)
                plain = now()
                state.teacher(crops, draws, observe=instruments.observer(done))
                instruments.see(crops, draws, identifiers, done)
                added += now() - plain - (plain - start)
            done += len(crops)
        start = now()
        instruments.metrics(images, places, alone)
        took.append(added + now() - start)
    return min(took)


def show_cadence(name: str) -> None:
    """Print what measuring takes of a run of a recipe, at its cadence, on one thread."""
    torch.set_num_threads(1)
    config = recipe(name)
    images = open_images(config.data, Path("unused"))
    between = cost(config, images, thorough=False) * (
        -(-config.steps // config.evaluation.every) - 1
    )
    ends = 2 * cost(config, images, thorough=True)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        train(
            config,
            images=images,
            world=World(rank=0, size=1, device=torch.device("cpu")),
            reporter=Silent(),
            checkpoints=Path(folder),
            resume_from=None,
        )
        whole = time.perf_counter() - start
    print(f"{name}: a run of {config.steps} steps takes {whole:.1f} s on one thread, of which")
    print(f"  between the ends, attention of teacher and student: {between / whole:.2%}")
    print(f"  at step 0 and at the last, everything: {ends / whole:.2%}")
    word = "met" if between / whole <= 0.02 else "NOT met"
    print(f"goal: in-training cadence at most 2 %: {word}")


class Silent:
    """A reporter that keeps nothing."""

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        """See trainers.training.reporter.Reporter."""


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, compare, hold the contest, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default=MODEL, help="a timm ViT")
    parser.add_argument("--images", type=int, default=512, help="images a round")
    parser.add_argument("--batch", type=int, default=32, help="images at once, both sides")
    parser.add_argument("--attention-memory", type=float, default=16.0, help="ours, MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here, too")
    parser.add_argument("--memory", action="store_true", help="ours by number of tokens")
    parser.add_argument("--cadence", action="store_true", help="share of a training run")
    parser.add_argument("--recipe", default="digits_tiny", help="of --cadence")
    given = parser.parse_args(arguments)
    if given.memory:
        show_memory(given.attention_memory)
        return
    if given.cadence:
        show_cadence(given.recipe)
        return
    apart = compare(given.model, min(4, given.batch), given.attention_memory)
    print(f"largest difference of a statistic between the two sides: {apart:.1e}")
    assert apart < 1e-4, "the two sides must measure the same"
    outcomes = hold(
        [
            Contender(
                name=OURS,
                make=make_measure,
                arguments=(given.model, given.batch, given.attention_memory),
            ),
            Contender(
                name="the model alone",
                make=make_forward,
                arguments=(given.model, given.batch),
            ),
            Contender(
                name=attention_extract.NAME,
                make=attention_extract.make_measure,
                arguments=(given.model, given.batch),
            ),
        ],
        rounds=given.rounds,
        steps=-(-given.images // given.batch),
        warmup=1,
        threads=given.threads,
    )
    mine = peak(functools.partial(Measure, given.model, given.attention_memory), given.batch)
    theirs = peak(functools.partial(attention_extract.Measure, given.model), given.batch)
    notes = [
        f"peak beyond the loaded model: ours {mine / 2**20:.0f} MiB, {mine / theirs:.2f} of the "
        f"peer's {theirs / 2**20:.0f} MiB, goal ≤ 0.25",
        f"{given.model}, {given.images} images a round in batches of {given.batch}, fp32",
    ]
    show(
        "Attention statistics",
        outcomes,
        goals=[Goal(peer=attention_extract.NAME, ratio=3.0)],
        notes=notes,
        json_path=given.json,
    )


if __name__ == "__main__":
    main()
