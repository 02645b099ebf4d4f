"""Do end points see far information where it is known to be needed? On scenes made by rule.

    python -m benchmarks.scenes FOLDER      # 4 seeds on each data set: half an hour on two cores

Labels train the same network on `scenes_far`, whose class lies in how two objects at opposite
borders differ, and on `scenes_near`, whose class is one texture anywhere; all else is alike
(trainers/data/scenes.py). Without both objects, or without the texture, nobody is right in more
than a quarter. So a network that is right there has information of two far places in [CLS], or of
one. FOLDER holds the runs: called again it goes on.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from trainers.adapters.opening import open_measurable
from trainers.config import DataConfig
from trainers.data.augment import evaluation_crops
from trainers.data.image_set import open_images
from trainers.data.scenes import Relation, scenes
from trainers.globality.causal import gradient_reach, influence, substitutes
from trainers.globality.cls_maps import QueryMaps
from trainers.globality.instruments import of_first
from trainers.globality.measurement import standardised
from trainers.globality.rollout import RolloutStatistics, rollout
from trainers.globality.tokens import Tokens
from trainers.randomness.streams import Stream
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import open_store

RELATIONS: tuple[Relation, ...] = ("far", "near")

SIDE, PATCH, SQUARE = 48, 12, 12
GRID = (SIDE // PATCH, SIDE // PATCH)

KNOBS = {
    "data.image_size": SIDE,
    "augment.global_size": SIDE,
    "augment.global_scale": [1.0, 1.0],
    "augment.aspect_ratio": [1.0, 1.0],
    "augment.local_crops": 0,
    "augment.jitter": 0,
    "augment.grayscale": 0,
    "augment.blur_first": 0,
    "augment.blur_others": 0,
    "augment.solarize": 0,
    "model.patch_size": PATCH,
    "model.width": 96,
    "model.heads": 4,
    "loss.cls": 0,
    "loss.labels": 1,
    "optimizer.learning_rate": 1e-3,
    "optimizer.weight_decay": 0.01,
    "optimizer.weight_decay_end": 0.01,
    "steps": 6000,
    "log_every": 200,
    "checkpoint_every": 3000,
    "evaluation.every": 6000,
    "evaluation.globality_images": 640,
    "evaluation.causal_images": 128,
}
"""Changes of `equalised_tiny`: whole images, so that both objects are in sight, and labels. Chosen
by k-NN on [CLS] of `scenes_far` at seed 0: with patches of 6 nothing was learned in 600 steps."""

SPREADS = (
    "influence/cls/gyration",
    "reach/cls/gyration",
    "rollout/cls/gyration",
    "globality/cls/gyration",
    "globality/cls/gyration/final_block",
    "globality/cls/nearest_distance",
)
"""End points that say how far apart the places are that [CLS] attends to or depends on."""

OTHERS = (
    "influence/cls/entropy",
    "reach/cls/entropy",
    "rollout/cls/entropy",
    "globality/cls/entropy",
    "globality/cls/positional_bias",
    "globality/cls/content_dependence",
    "globality/patch/gyration",
    "globality/patch/locality",
    "globality/contrast/gyration",
    "shuffled/contrast/positional_bias",
)
"""End points that say something else: how many places, whether always the same, what patches do."""

LEARNED = "knn/cls_top1"

Values = dict[str, dict[str, dict[str, dict[str, float]]]]
"""by relation, seed and part (`untrained`, `trained`: end points; `weights`: maps), by name"""

IMAGES = 128
"""Held-out scenes, whole groups, whose maps are held against what is needed."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An end point on the two data sets, means over seeds, and far minus near with 95 % of t."""

    name: str
    far: float
    near: float
    low: float
    high: float

    @property
    def sees(self) -> str:
        """What the interval says."""
        if self.low > 0:
            return "larger where far"
        return "smaller where far" if self.high < 0 else "cannot tell"


def difference(name: str, far: Sequence[float], near: Sequence[float]) -> Difference:
    """Of paired seeds: one network, initialised alike, trained on either data set."""
    interval = stats.ttest_rel(far, near).confidence_interval(0.95)
    return Difference(
        name=name,
        far=float(np.mean(far)),
        near=float(np.mean(near)),
        low=float(interval.low),
        high=float(interval.high),
    )


def train(folder: Path, relation: Relation, seed: int) -> Path:
    """The folder of that run, trained if it is not there."""
    knobs = KNOBS | {"data.source": f"scenes_{relation}", "seed": seed}
    words = [word for name, value in knobs.items() for word in ("--set", f"{name}={value}")]
    said = subprocess.run(
        [sys.executable, "-m", "trainers", "equalised_tiny", "--root", folder, *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return Path(said.rsplit("run folder: ", 1)[1].strip())


def recorded(run: Path) -> list[Mapping[str, float]]:
    """What a run recorded at step 0, and at its last step."""
    store = open_store(run.parent.parent)
    records = StoredTrial(store, run.name).records()
    found = []
    for step in (0, KNOBS["steps"]):
        of_step: dict[str, float] = {}
        for at, metrics in records:
            of_step |= metrics if at == step else {}
        found.append(of_step)
    return found


def overlapped(squares: Tensor) -> Tensor:
    """The patches that squares [..., 2] (first row and column, pixels) touch, bool [..., N]."""
    first = torch.arange(GRID[0]) * PATCH
    rows, columns = (
        (first < squares[..., axis, None] + SQUARE) & (first + PATCH > squares[..., axis, None])
        for axis in (0, 1)
    )
    return (rows[..., :, None] & columns[..., None, :]).flatten(-2)


@torch.no_grad()
def lifts(run: Path, relation: Relation) -> dict[tuple[str, str], float]:
    """Of kinds of maps of [CLS], how much weight is on what is needed, and on what is not.

    Weight on the patches that the squares touch over what a uniform map has there: 1 is uniform.
    By the kind and `needed`, or `not needed`: the texture of far scenes, the objects of near ones.
    """
    model = open_measurable(str(run))
    images = open_images(DataConfig(source=f"scenes_{relation}", image_size=SIDE), None)
    places = images.test[:IMAGES]
    pixels = evaluation_crops(
        images.pixels(places), images.aspect(places), SIDE, torch.device("cpu")
    )
    crops = standardised(pixels, model)
    draws = model.draws(images.identifiers[places], GRID)
    patches = math.prod(GRID)
    tokens = Tokens(
        grid=GRID, has_cls=True, registers=0, patch_queries=torch.arange(patches), fixed_patch=None
    )
    network = model.network.eval()
    attention, kept = QueryMaps(0, 1), RolloutStatistics(tokens, memory=64.0)
    network(crops, draws, observe=of_first(None, attention, kept))
    asked = torch.tensor([0])
    maps = {
        f"attention, block {number}": one.mean(1) for number, one in enumerate(attention.kept, 1)
    }
    maps["rollout"] = rollout(kept.kept, asked, 64.0, kept.allowed)[:, 0, 1:]
    stream = Stream(0, "gradient reach/directions")
    maps["gradient reach"] = gradient_reach(network, crops, draws, asked, GRID, stream)[:, 0]
    instead = substitutes(crops, "mean", GRID)
    maps["influence"] = influence(network, crops, draws, asked, GRID, instead)[:, 0]
    touched = overlapped(torch.from_numpy(scenes(relation).squares)[places])
    objects, texture = touched[:, :2].any(1), touched[:, 2]
    needed, other = (objects, texture) if relation == "far" else (texture, objects)
    found = {}
    for kind, weights in maps.items():
        shares = weights / weights.sum(-1, keepdim=True)
        for word, where in (("needed", needed & ~other), ("not needed", other & ~needed)):
            # An image without such a patch, or with all attention on [CLS], says nothing.
            known = where.any(-1) & shares.isfinite().all(-1)
            on = (shares * where).sum(-1)[known] / (where.float().mean(-1))[known]
            found[kind, word] = float(on.mean())
    return found


def measured(folder: Path, seeds: Sequence[int]) -> Values:
    """Everything of all runs, which are trained if they are not there."""
    asked = [(relation, seed) for seed in seeds for relation in RELATIONS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = list(pool.map(lambda one: train(folder, *one), asked))
    found: Values = {relation: {} for relation in RELATIONS}
    for (relation, seed), run in zip(asked, runs, strict=True):
        start, end = (
            {name: of_step[name] for name in (LEARNED, *SPREADS, *OTHERS)}
            for of_step in recorded(run)
        )
        weights = {f"{kind}: {word}": value for (kind, word), value in lifts(run, relation).items()}
        found[relation][str(seed)] = {"untrained": start, "trained": end, "weights": weights}
    return found


def tables(values: Values) -> str:
    """End points untrained and trained, and the weight of maps on what is needed, as Markdown."""
    far, near = (list(values[relation].values()) for relation in RELATIONS)
    lines = []
    for when in ("untrained", "trained"):
        lines += [f"| {when} | far | near | far − near | 95 % | |"]
        lines += ["| --- | ---: | ---: | ---: | --- | --- |"]
        for name in (LEARNED, *SPREADS, *OTHERS):
            one = difference(name, *([run[when][name] for run in runs] for runs in (far, near)))
            numbers = f"{one.far:.3f} | {one.near:.3f} | {one.far - one.near:+.3f} | "
            interval = f"{one.low:+.3f} to {one.high:+.3f}"
            lines.append(f"| `{name}` | {numbers}{interval} | {one.sees} |".replace("-0.", "−0."))
        lines.append("")
    lines += ["| weight of maps, 1 uniform | far: objects | texture | near: texture | objects |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    for kind in dict.fromkeys(name.split(": ")[0] for name in far[0]["weights"]):
        cells = []
        for runs in (far, near):
            for word in ("needed", "not needed"):
                each = [run["weights"][f"{kind}: {word}"] for run in runs]
                cells.append(f"{np.mean(each):.2f} ({min(each):.2f} to {max(each):.2f})")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, print the tables, and write the values beside the runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=4, help="1 to this many; default: 4")
    given = parser.parse_args()
    values = measured(given.folder, range(1, given.seeds + 1))
    (given.folder / "values.json").write_text(json.dumps(values, indent=1) + "\n")
    print(tables(values))


if __name__ == "__main__":
    main()
