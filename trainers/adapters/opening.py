"""Any ViT that can be measured, from whatever names it: a checkpoint, a file, a folder, timm."""

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.adapters.backbone_file import is_backbone_file, read_backbone_file
from trainers.adapters.hugging_face_models import (
    WEIGHTS,
    is_hugging_face,
    open_hugging_face,
    usual_preparation,
    vit_of,
    with_weights,
)
from trainers.adapters.onnx_file import OnnxFile, described, is_onnx, read_onnx
from trainers.adapters.pretrained import HEAD_FEATURES, load_backbone
from trainers.adapters.timm_folders import is_timm, open_timm_folder
from trainers.adapters.timm_models import TimmBackbone, open_timm
from trainers.adapters.weights_file import Weights, read_weights
from trainers.config import ModelConfig
from trainers.data.augment import IMAGENET, Colours
from trainers.errors import CheckpointError, ConfigError, InputError, listed, printable
from trainers.globality.measurable import Draws, Measurable
from trainers.grid import Grid
from trainers.randomness.forward_draws import ForwardDraws, evaluation_draws
from trainers.runs.saved_run import checkpoints_in, find_run, run_backbone
from trainers.training.checkpoint import is_checkpoint

_FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl", ".onnx")
"""What files of weights are usually called: a name that ends so is no timm name."""


def open_measurable(
    model: str,
    *,
    weights: Path | None = None,
    published: bool = False,
    heads: int | None = None,
    seed: int = 0,
) -> Measurable:
    """The ViT that `model` names.

    A checkpoint of ours (file, its folder, or a run's), a backbone exported from one, a file of
    weights under official DINO or timm names, a folder of Hugging Face's or timm's, or the name of
    a timm ViT. Of a name, values come from the file `weights`, from timm's `published` ones
    (downloaded), or from chance, keyed by `seed`. `heads` is the number of attention heads where
    the model does not say it: in a file of weights, or where it is another than that of the name.
    Raises InputError, one line, when there is no such model or it cannot be measured.
    """
    path = Path(os.path.expanduser(model))  # noqa: PTH111 (a Path raises for an unknown ~name)
    try:
        if path.exists():
            if weights is not None or published:
                raise InputError(
                    f"{model} is on disk and has its own weights: --weights and --pretrained are "
                    "for a timm name"
                )
            return _from_disk(path, heads)
        if "/" in model or model.endswith(_FILES):
            raise InputError(
                f"{model} is not there: give a checkpoint, a run folder, a file of weights, a "
                "Hugging Face folder or the name of a timm ViT"
            )
        return _from_name(model, weights, published=published, heads=heads, seed=seed)
    except CheckpointError as error:
        raise InputError(shortened(str(error))) from error


def _from_name(
    name: str, weights: Path | None, *, published: bool, heads: int | None, seed: int
) -> Measurable:
    if weights is not None and published:
        raise InputError("--weights and --pretrained exclude each other")
    weights = weights and weights.expanduser()
    if weights is not None and not weights.is_file():
        raise InputError(f"--weights {weights}: there is no such file")
    read = None if weights is None else read_weights(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            backbone = open_timm(
                name,
                None if read is None else read.tensors,
                published=published,
                options={} if heads is None else {"num_heads": heads},
            )
        except CheckpointError as error:
            raise InputError(f"--weights {weights}: {shortened(str(error))}") from error
    if read is not None:
        source, normalisation = f"file {weights}", "of the timm model: the file does not say"
        notes = (*read.notes, *_without((*backbone.set_aside, *read.set_aside)))
    else:
        source = "published by timm" + _tag(backbone) if published else f"random, seed {seed}"
        normalisation, notes = "of the timm model", ()
    if heads is not None:
        source += f", {heads} heads"
        notes = (f"{heads} heads, as given.", *notes)
    elif read is not None:
        usual = backbone.model.blocks[0].attn.num_heads
        said = f"{usual} heads, as {name} has: the file does not say; --heads N changes it."
        notes = (said, *notes)
    return _of_timm(
        backbone,
        name,
        source,
        is_random=read is None and not published,
        normalisation=normalisation,
        notes=notes,
    )


def _from_disk(path: Path, heads: int | None) -> Measurable:
    if is_onnx(path):
        return _from_onnx(path, heads)
    if is_bare_file(path):
        return _from_weights(path, read_weights(path), heads)
    if _is_of_a_folder(path):
        return _from_disk(path.absolute().parent, heads)
    if heads is not None:
        raise InputError(
            f"--heads {heads}: {path} says how many heads there are; --heads is for a file of "
            "weights or a timm name"
        )
    if path.is_file():
        return _from_backbone_file(path) if is_backbone_file(path) else _from_run(path)
    if is_backbone_file(path / WEIGHTS[0]):
        return _from_backbone_file(path / WEIGHTS[0])
    # A model of timm's that transformers saved is in both: timm knows how to make it.
    if is_timm(path):
        return _from_timm_folder(path)
    if is_hugging_face(path):
        return _from_hugging_face(path)
    if is_checkpoint(path) or checkpoints_in(path):
        return _from_run(path)
    raise InputError(
        f"{path} holds no model: no checkpoint of ours, here or in attempts/, and no "
        "config.json of a model that Hugging Face's transformers or timm saved"
    )


def is_bare_file(path: Path) -> bool:
    """Whether `path` is a file of weights without a configuration: it does not say its heads."""
    return (
        path.is_file()
        and not is_checkpoint(path)
        and not is_backbone_file(path)
        and not _is_of_a_folder(path)
    )


def _is_of_a_folder(path: Path) -> bool:
    """Whether `path` is the file of weights in a folder of timm's or Hugging Face's."""
    folder = path.absolute().parent
    return path.is_file() and path.name in WEIGHTS and (is_timm(folder) or is_hugging_face(folder))


def _from_run(path: Path) -> Measurable:
    run = find_run(path)
    config = run.trained
    fixed = config.loss.fixed_patch_place if config.loss.fixed_patch else None
    return Measurable(
        network=run_backbone(run),
        name=run.name,
        weights=f"teacher of {run.checkpoint}, step {run.step} of {config.steps}",
        is_random=run.step == 0,
        **_shape(config.model, config.augment.global_size),
        mean=IMAGENET[0],
        deviation=IMAGENET[1],
        normalisation="ImageNet's, as in training",
        fixed_patch_place=fixed,
        draws=_draws(config.model, config.seed),
        trained_on=config.data,
    )


def _from_backbone_file(path: Path) -> Measurable:
    found = read_backbone_file(path)
    config = found.backbone.config
    return Measurable(
        network=found.backbone,
        name=path.absolute().parent.name if path.name in WEIGHTS else path.stem,
        weights=f"file {path}, {found.origin}",
        is_random=False,
        **_shape(config, found.image_size),
        mean=IMAGENET[0],
        deviation=IMAGENET[1],
        normalisation="ImageNet's, as in training",
        fixed_patch_place=found.fixed_patch_place,
        draws=_draws(config, found.seed),
    )


def _from_onnx(path: Path, heads: int | None) -> Measurable:
    found = read_onnx(path)
    read = found.weights
    if not any(name.startswith("embeddings.") for name in read.tensors):
        measurable = _from_weights(path, read, heads)
        _check_computed(path, found, measurable.network)
        return measurable
    try:
        config = described(found, heads)
        model = vit_of(config, path)
        backbone, aside = with_weights(model, read, path, "each other", path.stem)
    except CheckpointError as error:
        raise InputError(shortened(str(error))) from error
    count, kind = config["num_attention_heads"], config["model_type"]
    mean, deviation = usual_preparation(kind)
    return _of_timm(
        backbone,
        path.stem,
        f"file {path}, {count} heads" + (" assumed" if heads is None else ""),
        is_random=False,
        mean=mean,
        deviation=deviation,
        normalisation="usual for its type: the file does not say",
        notes=(_heads_said(count, heads), *read.notes, *_without(aside)),
    )


def _check_computed(path: Path, found: OnnxFile, network: Any) -> None:
    """Raises InputError where the graph of a file computes another function of its weights."""
    if found.activation != "gelu":
        raise InputError(f"{path}: its activation is {found.activation}; gelu can be measured")
    own, epsilon = network.config.norm_epsilon, found.norm_epsilon
    if epsilon is not None and not math.isclose(epsilon, own, rel_tol=1e-3):
        raise InputError(
            f"{path}: its norms have an epsilon of {epsilon:g}; {own:g} can be measured"
        )


def _heads_said(found: int, heads: int | None) -> str:
    if heads is not None:
        return f"{found} heads, as given."
    return (
        f"{found} heads are assumed, of {HEAD_FEATURES} features each: the file does not say; "
        "--heads N changes it."
    )


def _from_weights(path: Path, read: Weights, heads: int | None) -> Measurable:
    try:
        found = load_backbone(read.tensors, heads=heads)
    except (CheckpointError, ConfigError) as error:
        another = f"; if it is of another timm ViT, name that and give --weights {path}"
        another = "" if is_onnx(path) else another
        raise InputError(f"{path}: {shortened(str(error))}{another}") from error
    config = found.backbone.config
    said = _heads_said(config.heads, heads)
    return Measurable(
        network=found.backbone.requires_grad_(False).eval(),
        name=path.stem,
        weights=f"file {path}, {config.heads} heads" + (" assumed" if heads is None else ""),
        is_random=False,
        **_shape(config, found.image_size),
        mean=IMAGENET[0],
        deviation=IMAGENET[1],
        normalisation="ImageNet's: the file does not say",
        notes=(said, *read.notes, *_without((*found.set_aside, *read.set_aside))),
    )


def _from_hugging_face(path: Path) -> Measurable:
    found = open_hugging_face(path)
    return _of_timm(
        found.backbone,
        path.resolve().name,
        f"folder {path}",
        is_random=False,
        mean=found.mean,
        deviation=found.deviation,
        normalisation="of its preprocessor_config.json"
        if found.says_how
        else "usual for its type: there is no preprocessor_config.json",
        notes=(*found.notes, *_without(found.set_aside)),
    )


def _from_timm_folder(path: Path) -> Measurable:
    found = open_timm_folder(path)
    return _of_timm(
        found.backbone,
        path.resolve().name,
        f"file {found.file}",
        is_random=False,
        normalisation="of its config.json"
        if found.says_how
        else "of the timm model: its config.json does not say",
        notes=(*found.notes, *_without(found.set_aside)),
    )


def _of_timm(
    backbone: TimmBackbone,
    name: str,
    weights: str,
    *,
    is_random: bool,
    mean: tuple[float, ...] | None = None,
    deviation: tuple[float, ...] | None = None,
    normalisation: str = "of the timm model",
    notes: tuple[str, ...] = (),
) -> Measurable:
    published = getattr(backbone.model, "pretrained_cfg", None) or {}
    rows, columns = backbone.patch_size
    height, width = backbone.image_size
    if rows != columns:
        raise InputError(f"{name}: patches of {rows}×{columns} pixels cannot be measured")
    own_height, own_width = backbone.own_size
    if own_height != own_width:
        notes = (
            *notes,
            f"Its own images are {own_height}×{own_width} pixels; measured on squares.",
        )
    elif own_height != height:
        notes = (
            *notes,
            f"Its own images are {own_height} pixels a side, no whole number of patches of {rows}: "
            f"it never sees the last {own_height - height}, so {height} is its size here.",
        )
    if backbone.resized:
        notes = (
            *notes,
            f"Its images are {own_height} pixels a side: its weights have positions of "
            f"{height // rows}×{width // columns} patches.",
        )
    return Measurable(
        network=backbone,
        check_size=backbone.check_size,
        name=name,
        weights=weights,
        is_random=is_random,
        depth=len(backbone.model.blocks),
        has_cls=backbone.has_cls,
        registers=backbone.registers_count,
        patch_size=rows,
        image_size=min(height, width),
        mean=_three(mean or published.get("mean", IMAGENET[0])),
        deviation=_three(deviation or published.get("std", IMAGENET[1])),
        normalisation=normalisation,
        notes=notes,
    )


def _shape(model: ModelConfig, image_size: int) -> dict[str, Any]:
    return {
        "depth": model.depth,
        "has_cls": model.cls,
        "registers": model.registers,
        "patch_size": model.patch_size,
        "image_size": image_size,
    }


def _draws(model: ModelConfig, seed: int) -> Draws:
    """Where a wandering [CLS] stands: as it did where the run was evaluated."""

    def draws(identifiers: Tensor, grid: Grid) -> ForwardDraws:
        return evaluation_draws(seed, identifiers, model, grid)

    return draws


def shortened(message: str, most: int = 400) -> str:
    """A message that may name every tensor of a model, as one line, cut."""
    message = printable(message)
    return message if len(message) <= most else f"{message[:most].rstrip()} …"


def _three(values: tuple[float, ...]) -> Colours:
    red, green, blue = values
    return red, green, blue


def _tag(backbone: TimmBackbone) -> str:
    tag = (getattr(backbone.model, "pretrained_cfg", None) or {}).get("tag")
    return f" ({tag})" if tag else ""


def _without(set_aside: tuple[str, ...]) -> tuple[str, ...]:
    """A sentence on tensors that are not used, if there are any."""
    if not set_aside:
        return ()
    names = printable(listed(set_aside))
    return (f"Set aside, a backbone has no use for them: {names}.",)
