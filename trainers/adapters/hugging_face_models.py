"""ViTs that Hugging Face's transformers saved, read without transformers into timm's ViT.

A folder holds `config.json` and `model.safetensors` (or shards of it, or `pytorch_model.bin`) of a
model of type `vit`, `deit`, `dinov2` or `dinov2_with_registers`, with or without a head.

=============================================  =============================================
theirs (without wrappers: `vit.`, `dinov2.`)   timm's
=============================================  =============================================
``embeddings.cls_token`` + its position        ``cls_token``
``embeddings.register_tokens``                 ``reg_token``
``embeddings.distillation_token`` + position   ``reg_token``
``embeddings.position_embeddings`` of patches  ``pos_embed``
``embeddings.patch_embeddings.projection``     ``patch_embed.proj``
``encoder.layer.N.attention.attention.query``  ``blocks.N.attn.qkv``, with key and value
``encoder.layer.N.attention.output.dense``     ``blocks.N.attn.proj``
``layernorm_before``, ``norm1``                ``norm1`` of the block; so ``norm2``
``layer_scaleN.lambda1``                       ``lsN.gamma``
``intermediate.dense``, ``output.dense``       ``mlp.fc1``, ``mlp.fc2``
``mlp.weights_in``, ``mlp.weights_out``        ``mlp.fc1``, ``mlp.fc2`` of a SwiGLU
``layernorm``                                  ``norm``
=============================================  =============================================

Classifiers, poolers, decoders and mask tokens are set aside (`trainers.adapters.weights_file`);
anything else left over or missing is an error. The folded positions compute the same function, and
images of another size than the model's own get the positions that transformers' own code
interpolates for the type: bicubic, with antialiasing for `dinov2_with_registers` only (timm always
has it). `vit` and `deit` do so there only with `interpolate_pos_encoding=True`, and refuse such
images otherwise.
"""

import functools
import json
import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.adapters.timm_models import TimmBackbone, need_timm
from trainers.adapters.weights_file import Weights, read_weights, set_aside
from trainers.config import shown
from trainers.data.augment import IMAGENET
from trainers.errors import CheckpointError, InputError, first_line, listed, printable

TYPES = ("vit", "deit", "dinov2", "dinov2_with_registers")
_ANTIALIASED = ("dinov2_with_registers",)
"""Types whose positions transformers interpolates with antialiasing."""
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""What the file of weights beside a configuration is called, here and by timm."""
_INDEXES = tuple(f"{name}.index.json" for name in WEIGHTS)

_LAYER = re.compile(r"^encoder\.layer\.(\d+)\.(.+)$")
_IN_LAYER = {
    "attention.output.dense.weight": "attn.proj.weight",
    "attention.output.dense.bias": "attn.proj.bias",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    **{
        f"{theirs}.{part}": f"{timms}.{part}"
        for theirs, timms in {
            "layernorm_before": "norm1",
            "layernorm_after": "norm2",
            "norm1": "norm1",
            "norm2": "norm2",
            "intermediate.dense": "mlp.fc1",
            "output.dense": "mlp.fc2",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
            "mlp.weights_in": "mlp.fc1",
            "mlp.weights_out": "mlp.fc2",
        }.items()
        for part in ("weight", "bias")
    },
}
_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.distillation_token": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_QKV = re.compile(r"^attention\.attention\.(query|key|value)\.(weight|bias)$")


@dataclass(frozen=True, kw_only=True)
class HuggingFaceModel:
    """A ViT from a folder of Hugging Face's, and how its images are prepared."""

    backbone: TimmBackbone
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    """of pixels in [0, 1], by colour"""
    says_how: bool
    """whether the folder says so, or the usual of its type was taken"""
    set_aside: tuple[str, ...]
    """names of the tensors that the backbone has no use for"""
    notes: tuple[str, ...] = ()
    """which network of the file was taken, where there was a choice"""


def is_hugging_face(folder: Path) -> bool:
    """Whether `folder` holds the configuration of a model of transformers."""
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "model_type" in content


def open_hugging_face(folder: Path) -> HuggingFaceModel:
    """The backbone in `folder`, frozen, in float32, on the CPU.

    Raises InputError, one line, for a model of another type or with parts that have no equal here;
    CheckpointError when weights cannot be read, or names or shapes do not fit.
    """
    config = _read_json(folder / CONFIG)
    kind = config.get("model_type")
    if kind not in TYPES:
        raise InputError(
            f"{folder}: model type {kind!r} cannot be measured (allowed: {', '.join(TYPES)})"
        )
    model = vit_of(config, folder / CONFIG)
    read = _read_weights(folder)
    backbone, aside = with_weights(model, read, folder, f"its {CONFIG}", folder.resolve().name)
    mean, deviation, says_how = _preparation(folder, kind)
    return HuggingFaceModel(
        backbone=backbone,
        mean=mean,
        deviation=deviation,
        says_how=says_how,
        set_aside=aside,
        notes=read.notes,
    )


def vit_of(config: Mapping[str, Any], where: Path) -> nn.Module:
    """A timm ViT of the shape that `config`, found `where`, describes.

    Raises InputError, one line, where it describes none, or one with parts that have no equal here.
    """
    try:
        return _made(config)
    except KeyError as error:
        raise InputError(f"{where} says nothing of {error.args[0]}") from error
    except _UnknownPartError as error:
        raise InputError(f"{where}: {error}") from error
    except (TypeError, ValueError, AssertionError, ArithmeticError, RuntimeError) as error:
        raise InputError(f"{where} describes no ViT: {printable(first_line(error))}") from error


def with_weights(
    model: nn.Module, read: Weights, where: Path, shape: str, name: str
) -> tuple[TimmBackbone, tuple[str, ...]]:
    """That ViT with weights under Hugging Face's names, frozen, and the names it has no use for.

    `where` the weights are, and what says the `shape` of the model, are for errors. Raises
    CheckpointError when names or shapes do not fit.
    """
    theirs, aside = set_aside({name: tensor.float() for name, tensor in read.tensors.items()})
    try:
        model.load_state_dict(_translated(theirs, where))
    except RuntimeError as error:
        said = str(error).splitlines()
        reasons = printable("; ".join(line.strip().rstrip(".") for line in said[1:] or said))
        raise CheckpointError(f"weights in {where} do not fit {shape}: {reasons}") from error
    backbone = TimmBackbone(model.requires_grad_(False), name)
    return backbone, tuple(sorted({*aside, *read.set_aside}))


class _UnknownPartError(Exception):
    """The configuration asks for something that is not translated."""


def _made(config: Mapping[str, Any]) -> nn.Module:
    need_timm(str(config["model_type"]))
    from timm.layers.activations import QuickGELU
    from timm.layers.mlp import Mlp, SwiGLUPacked
    from timm.models.vision_transformer import VisionTransformer

    kind, width = config["model_type"], config["hidden_size"]
    activations: dict[str, Callable[..., nn.Module]] = {
        "gelu": nn.GELU,
        "gelu_new": functools.partial(nn.GELU, approximate="tanh"),
        "gelu_pytorch_tanh": functools.partial(nn.GELU, approximate="tanh"),
        "quick_gelu": QuickGELU,
        "relu": nn.ReLU,
        "silu": nn.SiLU,
    }
    activation = config.get("hidden_act", "gelu")
    if activation not in activations:
        raise _UnknownPartError(
            f"hidden_act {activation!r} is not known (allowed: {', '.join(activations)})"
        )
    if config.get("num_channels", 3) != 3:
        raise _UnknownPartError(f"images of {config['num_channels']} channels cannot be measured")
    is_dino = kind.startswith("dinov2")
    hidden = int(width * config["mlp_ratio"]) if is_dino else config["intermediate_size"]
    gated = is_dino and bool(config.get("use_swiglu_ffn", False))
    if gated:
        hidden = 2 * ((int(hidden * 2 / 3) + 7) // 8 * 8)
    registers = {
        "deit": 1,
        "dinov2_with_registers": config.get("num_register_tokens", 4),
    }.get(kind, 0)
    model = VisionTransformer(
        img_size=_square(config, "image_size"),
        patch_size=_square(config, "patch_size"),
        num_classes=0,
        embed_dim=width,
        depth=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        # timm rounds down what the ratio gives.
        mlp_ratio=(hidden + 0.5) / width,
        qkv_bias=config.get("qkv_bias", True),
        init_values=1.0 if is_dino else None,
        # Positions of [CLS] and the like are folded into these tokens.
        no_embed_class=True,
        reg_tokens=registers,
        dynamic_img_size=True,
        norm_layer=functools.partial(
            nn.LayerNorm, eps=float(config.get("layer_norm_eps", 1e-6 if is_dino else 1e-12))
        ),
        act_layer=nn.SiLU if gated else activations[activation],
        mlp_layer=typing.cast(type[nn.Module], SwiGLUPacked if gated else Mlp),
        weight_init="skip",
    )
    # In place of timm's method of that name.
    placed = functools.partial(_with_positions, model, antialias=kind in _ANTIALIASED)
    typing.cast(Any, model)._pos_embed = placed
    return model


def _with_positions(model: Any, patches_BRCD: Tensor, *, antialias: bool) -> Tensor:
    """[CLS], registers and patches [B, T, D], these with positions, interpolated where the grid
    R×C is not the model's own."""
    grid, own = tuple(patches_BRCD.shape[1:3]), tuple(model.patch_embed.grid_size)
    positions_1ND = model.pos_embed
    if grid != own:
        positions_1ND = (
            functional.interpolate(
                positions_1ND.unflatten(1, own).permute(0, 3, 1, 2).float(),
                size=grid,
                mode="bicubic",
                antialias=antialias,
            )
            .flatten(2)
            .transpose(1, 2)
            .to(positions_1ND)
        )
    first = [token for token in (model.cls_token, model.reg_token) if token is not None]
    expanded = [token.expand(len(patches_BRCD), -1, -1) for token in first]
    return torch.cat([*expanded, patches_BRCD.flatten(1, 2) + positions_1ND], dim=1)


def _square(config: Mapping[str, Any], name: str) -> tuple[int, int]:
    said = config[name]
    sides = said if isinstance(said, list) else [said, said]
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise _UnknownPartError(
            f"{name} must be one whole number of pixels or two, got {shown(said)}"
        )
    return sides[0], sides[1]


def _translated(theirs: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Every tensor under timm's name, queries, keys and values as one."""
    timms: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    left = []
    for name, tensor in theirs.items():
        layer = _LAYER.match(name)
        if name in _OUTSIDE:
            timms[_OUTSIDE[name]] = tensor
        elif layer and layer[2] in _IN_LAYER:
            timms[f"blocks.{layer[1]}.{_IN_LAYER[layer[2]]}"] = tensor
        elif layer and (qkv := _QKV.match(layer[2])):
            parts.setdefault(f"blocks.{layer[1]}.attn.qkv.{qkv[2]}", {})[qkv[1]] = tensor
        else:
            left.append(name)
    if left:
        raise CheckpointError(f"weights in {folder} are left over: {printable(listed(left))}")
    for name, three in parts.items():
        if len(three) < 3:
            absent = {"query", "key", "value"} - three.keys()
            lacking = listed(sorted(absent))
            raise CheckpointError(f"weights in {folder} lack the {lacking} of {name}")
        timms[name] = torch.cat([three[part] for part in ("query", "key", "value")])
    position = timms.get("pos_embed")
    if position is not None and "cls_token" in timms and position.ndim == 3:
        # Registers of DINOv2 carry no position, the distillation token of DeiT does.
        slots = 1 + ("embeddings.distillation_token" in theirs)
        timms["cls_token"] = timms["cls_token"] + position[:, :1]
        if slots == 2:
            timms["reg_token"] = timms["reg_token"] + position[:, 1:2]
        timms["pos_embed"] = position[:, slots:]
    return timms


def _read_weights(folder: Path) -> Weights:
    for index in (folder / name for name in _INDEXES):
        if index.is_file():
            shards = _read_json(index).get("weight_map")
            files = list(shards.values()) if isinstance(shards, dict) else []
            if not files or not all(isinstance(file, str) for file in files):
                raise InputError(
                    f"{index}: weight_map must say of each tensor which file holds it, got "
                    f"{shown(shards)}; download the folder again"
                )
            return read_weights(*(folder / Path(file).name for file in sorted(set(files))))
    for name in WEIGHTS:
        if (folder / name).is_file():
            return read_weights(folder / name)
    raise InputError(f"{folder} holds no {' or '.join(WEIGHTS)} beside its {CONFIG}")


def usual_preparation(kind: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of pixels in [0, 1] that models of a type usually want."""
    half = (0.5, 0.5, 0.5)
    return (half, half) if kind == "vit" else IMAGENET


def _preparation(folder: Path, kind: str) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
    """Mean and deviation of pixels in [0, 1] that the model wants, and whether it says so."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return (*usual_preparation(kind), False)
    said = _read_json(path)
    scale = 1.0
    if said.get("do_rescale", True):
        factor = said.get("rescale_factor", 1 / 255)
        if not isinstance(factor, (int, float)) or not (math.isfinite(factor) and factor > 0):
            raise InputError(
                f"{path}: rescale_factor must be a number above 0, usually 1/255, got {factor!r}"
            )
        scale = 255 * factor
    if not said.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1 / scale,) * 3, True
    try:
        mean = tuple(float(value) / scale for value in said["image_mean"])
        deviation = tuple(float(value) / scale for value in said["image_std"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} names no image_mean and image_std") from error
    fits = len(mean) == len(deviation) == 3 and all(map(math.isfinite, mean + deviation))
    if not fits or min(deviation) <= 0:
        raise InputError(
            f"{path}: image_mean and image_std must be three numbers each, those of image_std above"
            f" 0, got {shown(said['image_mean'])} and {shown(said['image_std'])}"
        )
    return mean, deviation, True


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is no JSON object")
    return content
