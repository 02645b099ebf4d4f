"""Weights for a run to start from (`model.weights`), from whatever holds a ViT.

`timm:NAME` (timm's published ones, downloaded), a folder of timm's or Hugging Face's, a file under
official DINO or timm names, a run or checkpoint of ours (its teacher), or a backbone exported from
one. All of them become tensors under our names that compute the same features of the same images:
a model that wants its images standardised otherwise than by ImageNet's colours, as all are in
training, has the difference folded into its patch embedding.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.adapters.opening import is_bare_file, open_measurable, shortened
from trainers.adapters.pretrained import load_backbone
from trainers.adapters.timm_models import TimmBackbone
from trainers.adapters.timm_shapes import shape_of
from trainers.adapters.weights_file import read_weights
from trainers.config import TrainConfig, override
from trainers.config.pin import digest_of, pinned_to, source_of
from trainers.data.augment import IMAGENET
from trainers.errors import CheckpointError, ConfigError, InputError
from trainers.globality.measurable import Measurable
from trainers.model.vit import VisionTransformer
from trainers.training.starting import Starting, notes_of

TIMM = "timm:"

CLOSE = 1e-3
"""Largest difference of features from those of the model read, over their largest value."""


def read_starting(source: str) -> Starting:
    """The weights at `source`. Raises InputError, one line, when there are none that fit a ViT."""
    if source.startswith(TIMM):
        return _of_measurable(_opened(source.removeprefix(TIMM), source, published=True), source)
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise InputError(
            f"model.weights {source} is not there: give timm:NAME, a folder of timm's or Hugging "
            "Face's, a file of weights, or a run; on a cluster every node needs it at that path; "
            "a run that has begun is found without it by SOURCE@sha256:…, as in its config.json"
        )
    if is_bare_file(path):
        try:
            read = read_weights(path)
            # Of any number of heads: tensors are the same.
            made = load_backbone(read.tensors, heads=1)
        except (CheckpointError, ConfigError) as error:
            raise InputError(f"model.weights {source}: {shortened(str(error))}") from error
        starting = _of_backbone(made.backbone, f"file {path}", read.notes)
        known = {name: value for name, value in starting.knobs.items() if name != "heads"}
        return replace(starting, knobs=known)
    return _of_measurable(_opened(str(path), source), source)


def _opened(name: str, source: str, *, published: bool = False) -> Measurable:
    try:
        return open_measurable(name, published=published)
    except InputError as error:
        raise InputError(f"model.weights {source}: {error}") from error


def starting_weights(
    config: TrainConfig, read: Callable[[str], Starting] = read_starting
) -> Starting | None:
    """The weights that `config` starts from; None where it starts by chance.

    Raises InputError, one line, when they cannot be read, do not fit its model, or are others than
    it is pinned to.
    """
    weights = config.model.weights
    if not weights:
        return None
    starting = read(source_of(weights))
    wanted = digest_of(weights)
    if wanted and starting.digest != wanted:
        raise ConfigError(
            f"model.weights {source_of(weights)} is pinned to sha256 {wanted[:12]}, but "
            f"{starting.digest[:12]} is found there: bring back the weights that are meant, or "
            "leave out @sha256:… to take these"
        )
    notes_of(starting, config)
    return starting


def pinned(
    config: TrainConfig, read: Callable[[str], Starting] = read_starting
) -> tuple[TrainConfig, Starting | None]:
    """`config` with `model.weights` pinned to what is found there, and that. Raises as above.

    Weights that are pinned already and cannot be read are None: what they were is known, which is
    all that it takes to find a run again that has begun.
    """
    source, digest = source_of(config.model.weights), digest_of(config.model.weights)
    try:
        starting = starting_weights(config, read)
    except InputError as error:
        if isinstance(error, ConfigError) or not digest:
            raise
        starting = None
    if starting is not None:
        digest = starting.digest
    if not digest:
        return config, None
    if not source.startswith(TIMM):
        source = str(Path(source).expanduser().absolute())
    return override(config, {"model.weights": pinned_to(source, digest)}), starting


def starting_lines(starting: Starting | None, config: TrainConfig) -> list[str]:
    """What to tell a person of the weights that a run starts from, a line each."""
    if starting is None:
        return []
    notes = (f"note: {note}" for note in notes_of(starting, config))
    return [f"starts from {starting.origin} (sha256 {starting.digest[:12]})", *notes]


def _of_measurable(found: Measurable, source: str) -> Starting:
    if isinstance(found.network, VisionTransformer):
        return _of_backbone(found.network, found.weights, found.notes)
    assert isinstance(found.network, TimmBackbone)
    model = found.network.model
    try:
        made = load_backbone(model.state_dict(), image_size=found.image_size, shape=shape_of(model))
    except InputError as error:
        raise InputError(
            f"model.weights {source} is of a ViT that cannot be trained here: "
            f"{shortened(str(error))}"
        ) from error
    _check(made.backbone, found, source)
    notes = found.notes
    if (found.mean, found.deviation) != IMAGENET:
        _fold_colours(made.backbone, found)
        notes = (
            *notes,
            "Its images have other means and deviations of colours than those of training: the "
            "difference is folded into the patch embedding.",
        )
    return _of_backbone(made.backbone, found.weights, notes)


def _of_backbone(backbone: VisionTransformer, origin: str, notes: tuple[str, ...]) -> Starting:
    knobs: Mapping[str, Any] = {
        name: getattr(backbone.config, name) for name in type(backbone.config).model_fields
    }
    tensors = {name: tensor.detach() for name, tensor in backbone.state_dict().items()}
    return Starting(tensors=tensors, knobs=knobs, grid=backbone.grid, origin=origin, notes=notes)


@torch.no_grad()
def _check(backbone: VisionTransformer, found: Measurable, source: str) -> None:
    """Raise InputError where features are not those of the model read: an activation, say."""
    side = found.image_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, side, side, generator=generator)
    expected: Tensor = found.network(images).tokens
    made = backbone.eval()(images).tokens
    if (made - expected).abs().max() > CLOSE * expected.abs().max():
        raise InputError(
            f"model.weights {source} is of a ViT that cannot be trained here: of the same image "
            "it computes other features than ours with its weights (another activation or norm)"
        )


@torch.no_grad()
def _fold_colours(backbone: VisionTransformer, found: Measurable) -> None:
    """Make `backbone` take images standardised by ImageNet's colours, not by the model's own.

    Where training hands it x, the model wants ``(x σ + μ - mean) / deviation``.
    """
    mean, deviation, (theirs_mean, theirs_deviation) = (
        torch.tensor(found.mean), torch.tensor(found.deviation), torch.tensor(IMAGENET)
    )  # fmt: skip
    embedding = backbone.embedding
    shift = ((theirs_mean - mean) / deviation)[None, :, None, None]
    scale = (theirs_deviation / deviation)[None, :, None, None]
    assert embedding.bias is not None
    embedding.bias += (embedding.weight * shift).sum((1, 2, 3))
    embedding.weight *= scale
