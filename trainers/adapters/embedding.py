"""Features of every image of a data set by one ViT, as a parquet file."""

import contextlib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from trainers.data.augment import evaluation_crops
from trainers.data.image_set import ImageSet
from trainers.errors import InputError
from trainers.globality.measurable import Measurable
from trainers.globality.measurement import standardised
from trainers.model.vit import Features
from trainers.system.atomic import replacing
from trainers.training.starting import digest_of_tensors

NOTES = "dinolab"
"""Key of the file's metadata: a JSON object of what was embedded, with what, and how."""

GROUP = 1024
"""Rows that are kept before they are written, about."""

KINDS: dict[str, Callable[[Features], Tensor]] = {
    "cls": lambda features: features.cls,
    "patch_mean": lambda features: features.patches.mean(1),
    "register_mean": lambda features: features.registers.mean(1),
}
"""Of each kind of token the features [B, D]: a column of the file each."""

Progress = Callable[[int, int], None]
"""called with the images done and all of them; may raise to end it"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is embedded, and how."""

    kinds: tuple[str, ...]
    """of KINDS"""
    size: int
    """side of the images, pixels"""
    batch_size: int


def kinds_of(model: Measurable, asked: Collection[str] | None = None) -> tuple[str, ...]:
    """The kinds of token that the model has, or those of them that are asked for.

    Raises InputError for others.
    """
    has = {"cls": model.has_cls, "patch_mean": True, "register_mean": model.registers > 0}
    there = tuple(kind for kind in KINDS if has[kind])
    if asked is None:
        return there
    if not asked or not set(asked) <= set(there):
        raise InputError(
            f"--tokens {','.join(asked)}: {model.name} has {', '.join(there)}; give some of these"
        )
    return tuple(kind for kind in there if kind in asked)


def check_file(out: Path) -> None:
    """Raise InputError when `out` cannot be a new file."""
    if out.exists() or out.is_symlink():
        raise InputError(f"--out {out}: it is there; give the name of a new file")


def write_embeddings(
    out: Path,
    model: Measurable,
    images: ImageSet,
    plan: Plan,
    device: torch.device,
    *,
    facts: dict[str, Any],
    progress: Progress = lambda done, total: None,
) -> None:
    """Write name, label, split and features of every image to `out`, whole or not at all.

    Features are float32 [D], behind the last norm, in lists of fixed size; images are the centred
    square. The metadata holds `facts`, and digests of weights and images. Memory does not grow with
    the data set. Raises InputError, one line, when `out` is there or cannot be written.
    """
    check_file(out)
    network = model.network.to(device).eval()
    notes = {
        **facts,
        "tokens": list(plan.kinds),
        "weights_sha256": digest_of_tensors(network.state_dict()),
        "images_sha256": images.digest,
        "image_size": plan.size,
        "mean": list(model.mean),
        "deviation": list(model.deviation),
        "split": "declared by the data set" if images.declared else "chosen by dinolab",
    }
    out = out.absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as file, contextlib.ExitStack() as opened:
            writer, group, done = None, [], 0
            for table in _tables(model, images, plan, device):
                group.append(table)
                done += len(table)
                progress(done, len(images))
                if writer is None:
                    schema = table.schema.with_metadata({NOTES: json.dumps(notes)})
                    writer = opened.enter_context(
                        pq.ParquetWriter(file, schema, compression="zstd")
                    )
                if sum(map(len, group)) >= GROUP or done == len(images):
                    writer.write_table(pa.concat_tables(group))
                    group = []
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror or error}") from error


def _tables(
    model: Measurable, images: ImageSet, plan: Plan, device: torch.device
) -> Iterator[pa.Table]:
    """The rows of each batch, in the order of the data set."""
    is_test = torch.zeros(len(images), dtype=torch.bool)
    is_test[images.test] = True
    for places in torch.arange(len(images)).split(plan.batch_size):
        features = embedded(model, images, places, plan.size, device)
        labels: list[str | None] = [None] * len(places)
        if images.labels is not None:
            labels = [images.class_names[label] for label in images.labels[places].tolist()]
        columns: dict[str, pa.Array] = {
            "name": pa.array([images.name(place) for place in places.tolist()], pa.string()),
            "label": pa.array(labels, pa.string()),
            "split": pa.array(["test" if held else "train" for held in is_test[places].tolist()]),
        }
        for kind in plan.kinds:
            rows = KINDS[kind](features).float().cpu().contiguous()
            columns[kind] = pa.FixedSizeListArray.from_arrays(
                pa.array(rows.flatten().numpy()), rows.shape[1]
            )
        yield pa.table(columns)


@torch.no_grad()
def embedded(
    model: Measurable, images: ImageSet, places: Tensor, size: int, device: torch.device
) -> Features:
    """Features of the images at `places` by a frozen model, which must be on `device`."""
    pixels = evaluation_crops(images.pixels(places, device), images.aspect(places), size, device)
    draws = model.draws(images.identifiers[places].to(device), model.grid(size))
    features: Features = model.network(standardised(pixels, model), draws)
    return features
