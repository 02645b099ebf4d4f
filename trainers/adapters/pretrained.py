"""Published ViT weights by name: the official DINO names and timm's into ours.

======================================  ==============================================
theirs (official DINO and timm)         ours (trainers/model)
======================================  ==============================================
``cls_token``                           ``cls``
``reg_token`` (``register_tokens``)     ``registers``; so ``dist_token`` of DeiT
``pos_embed``, slot of [CLS]            ``cls_position``; no such slot: no position
``pos_embed``, slots of registers       added into ``registers``
``pos_embed``, slots of patches         ``position``
``patch_embed.proj.*``                  ``embedding.*``
``blocks.N.norm1.*``, ``norm2.*``       the same
``blocks.N.attn.qkv.*``                 ``blocks.N.attention.qkv.*``
``blocks.N.attn.proj.*``                ``blocks.N.attention.projection.*``
``blocks.N.mlp.fc1.*`` (``w12``)        ``blocks.N.expand.*``
``blocks.N.mlp.fc2.*`` (``w3``)         ``blocks.N.contract.*``
``norm.*``                              the same
``blocks.N.ls1.gamma``, ``ls2.gamma``   ``blocks.N.layer_scale1``, ``layer_scale2``
heads, masks, decoders                  set aside, by name (`trainers.adapters.weights_file`)
======================================  ==============================================

Anything else that is left over on either side is an error. The official code and timm compute the
same function as ours at the checkpoint's own image size. At others all three interpolate positions
bicubically, but the official code from a grid 0.1 patches too large, and timm with another kernel
(antialiased).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from trainers.adapters.timm_shapes import mlp_knobs
from trainers.adapters.weights_file import set_aside
from trainers.config import ModelConfig, explain
from trainers.errors import CheckpointError, ConfigError
from trainers.grid import Grid
from trainers.model.positions import interpolation
from trainers.model.vit import VisionTransformer

HEAD_FEATURES = 64
"""Features of a head in every published ViT; shapes do not tell."""

_BLOCKS = {
    "norm1": "norm1",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.projection",
    "norm2": "norm2",
    "mlp.fc1": "expand",
    "mlp.fc2": "contract",
}
_BLOCK = re.compile(r"^blocks\.(\d+)\.(.+)\.(weight|bias)$")
_EVA_SCALE = re.compile(r"^(blocks\.\d+)\.gamma_([12])$")
_SCALE = re.compile(r"^(blocks\.\d+)\.ls([12])\.gamma$")


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A backbone with published weights."""

    backbone: VisionTransformer
    image_size: int
    """side of the images whose grid the positions belong to, pixels"""
    set_aside: tuple[str, ...]
    """names of the projection head or classifier in the source, which a backbone has no use for"""


def load_backbone(
    weights: Mapping[str, Tensor],
    *,
    image_size: int | None = None,
    heads: int | None = None,
    shape: Mapping[str, Any] | None = None,
) -> Pretrained:
    """A backbone of the shape of `weights` (official DINO or timm names) with their values.

    `image_size` in pixels, by default the one the weights were trained at; for another, learned
    positions are interpolated. `heads` is by default the width over 64, which is an assumption:
    shapes do not tell. `shape` are the knobs of the model where they are known, heads among them;
    then a bias of a block that the weights lack is 0. Raises CheckpointError, one line, when any
    name is left over or missing, or when shapes do not fit together; ConfigError when `heads` does
    not divide the width.
    """
    theirs, aside = set_aside({name: tensor.float() for name, tensor in weights.items()})
    for name in list(theirs):
        for official, timms in (("mlp.w12.", "mlp.fc1."), ("mlp.w3.", "mlp.fc2.")):
            if official in name:
                theirs[name.replace(official, timms)] = theirs.pop(name)
    _spell_eva(theirs)
    for name in ("register_tokens", "dist_token"):
        if name in theirs:
            theirs["reg_token"] = theirs.pop(name)
    for needed in ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"):
        if needed not in theirs:
            raise CheckpointError(f"weights are not those of a ViT: there is no {needed}")
    for name, axes in (("patch_embed.proj.weight", 4), ("pos_embed", 3), ("reg_token", 3)):
        if name in theirs and theirs[name].ndim != axes:
            sides = list(theirs[name].shape)
            raise CheckpointError(f"weights are not those of a ViT: {name} has the shape {sides}")

    width, _, patch_size, _ = theirs["patch_embed.proj.weight"].shape
    registers = theirs["reg_token"].shape[1] if "reg_token" in theirs else 0
    side = image_size // patch_size if shape and image_size else None
    slots, grid = _slots("cls_token" in theirs, registers, theirs.get("pos_embed"), side)
    if image_size is None:
        if grid is None:
            raise CheckpointError("weights without pos_embed do not tell the image size: give it")
        image_size = grid[0] * patch_size
    if shape is None and heads is None and width % HEAD_FEATURES:
        raise ConfigError(
            f"width {width} is no multiple of {HEAD_FEATURES}: say how many heads there are "
            "(--heads)"
        )
    depth = 1 + max(int(found[1]) for name in theirs if (found := _BLOCK.match(name)))
    knobs = shape or {
        "patch_size": patch_size,
        "width": width,
        "depth": depth,
        "heads": width // HEAD_FEATURES if heads is None else heads,
        **_mlp(theirs["blocks.0.mlp.fc1.weight"], theirs.get("blocks.0.mlp.fc2.weight"), width),
        "layer_scale": 1.0 if "blocks.0.ls1.gamma" in theirs else 0.0,
        "patch_position": "none" if grid is None else "learned",
        "cls": "cls_token" in theirs,
        "cls_position": "learned" if slots and "cls_token" in theirs else "none",
        "registers": registers,
    }
    try:
        config = ModelConfig(**knobs)
    except ValidationError as error:
        raise ConfigError(
            f"weights of a shape that is no ViT: {'; '.join(explain(error))}"
        ) from error
    backbone = VisionTransformer(config, image_size)
    ours = _ours(theirs, slots, grid, backbone.grid)
    for name, own in backbone.blocks.state_dict(prefix="blocks.").items() if shape else ():
        if name.endswith(".bias"):
            ours.setdefault(name, torch.zeros_like(own))
    try:
        backbone.load_state_dict(ours)
    except RuntimeError as error:
        reasons = [line.strip().rstrip(".") for line in str(error).splitlines()[1:]]
        missing = sorted(_theirs(name) for name in set(backbone.state_dict()) - set(ours))
        left = sorted(set(ours) - set(backbone.state_dict()))
        problems = [f"missing {', '.join(missing)}"] if missing else []
        problems += [f"left over {', '.join(left)}"] if left else []
        raise CheckpointError(
            "weights do not fit this ViT: " + ("; ".join(problems or reasons))
        ) from error
    return Pretrained(backbone=backbone, image_size=image_size, set_aside=aside)


def _mlp(expand: Tensor, contract: Tensor | None, width: int) -> dict[str, Any]:
    """Knobs of the MLP with these matrices."""
    rows = len(expand)
    hidden = contract.shape[1] if contract is not None and contract.ndim == 2 else rows
    return mlp_knobs(rows, hidden, width)


def _spell_eva(theirs: dict[str, Tensor]) -> None:
    """Name the tensors of timm's Eva as its VisionTransformer has them."""
    for name in list(theirs):
        if scale := _EVA_SCALE.match(name):
            theirs[f"{scale[1]}.ls{scale[2]}.gamma"] = theirs.pop(name)
        elif name.endswith(".attn.q_bias"):
            block = name.removesuffix("q_bias")
            queries, values = theirs.pop(name), theirs.pop(f"{block}v_bias")
            theirs[f"{block}qkv.bias"] = torch.cat([queries, torch.zeros_like(queries), values])
        elif ".mlp.fc1_g." in name:
            both = [theirs.pop(name), theirs.pop(name.replace("fc1_g", "fc1_x"))]
            theirs[name.replace("fc1_g", "fc1")] = torch.cat(both)


def _slots(
    has_cls: bool, registers: int, pos_embed: Tensor | None, known: int | None
) -> tuple[int, Grid | None]:
    """How many of the positions belong to [CLS] and registers, and the grid of the others, of which
    a side may be known."""
    if pos_embed is None:
        return 0, None
    count, first = pos_embed.shape[1], has_cls + registers
    # The official DINOv2 has a position for [CLS] and none for registers.
    fitting = [
        slots
        for slots in {0, int(has_cls), first}
        if count > slots and (known or math.isqrt(count - slots)) ** 2 == count - slots
    ]
    if len(fitting) != 1:
        raise CheckpointError(
            f"pos_embed with {count} positions must be a square grid of patches, with or without "
            f"{first} for [CLS] and registers"
        )
    side = math.isqrt(count - fitting[0])
    return fitting[0], (side, side)


def _ours(
    theirs: Mapping[str, Tensor], slots: int, grid: Grid | None, wanted: Grid
) -> dict[str, Tensor]:
    """Every tensor under our name; what has none keeps its own."""
    ours: dict[str, Tensor] = {}
    names = {"cls_token": "cls", "reg_token": "registers"}
    for name, tensor in theirs.items():
        block = _BLOCK.match(name)
        if block and block[2] in _BLOCKS:
            ours[f"blocks.{block[1]}.{_BLOCKS[block[2]]}.{block[3]}"] = tensor
        elif scale := _SCALE.match(name):
            ours[f"{scale[1]}.layer_scale{scale[2]}"] = tensor
        elif name.startswith("patch_embed.proj."):
            ours[name.replace("patch_embed.proj", "embedding")] = tensor
        elif name != "pos_embed":
            ours[names.get(name, name)] = tensor
    if grid is not None:
        first, patches = theirs["pos_embed"].split([slots, grid[0] * grid[1]], dim=1)
        if slots and "cls" in ours:
            ours["cls_position"], first = first[:, :1], first[:, 1:]
        if first.shape[1]:
            ours["registers"] = ours["registers"] + first
        if wanted != grid:
            patches = interpolation(grid, wanted, 0.0, patches.device) @ patches
        ours["position"] = patches
    return ours


def _theirs(name: str) -> str:
    """The timm name of one of our tensors; positions together are `pos_embed`."""
    tokens = {
        "cls": "cls_token",
        "registers": "reg_token",
        "position": "pos_embed",
        "cls_position": "pos_embed",
        "mask": "mask_token",
    }
    if name in tokens:
        return tokens[name]
    for theirs, ours in _BLOCKS.items():
        name = re.sub(rf"^(blocks\.\d+)\.{re.escape(ours)}\.", rf"\1.{theirs}.", name)
    name = re.sub(r"^(blocks\.\d+)\.layer_scale([12])$", r"\1.ls\2.gamma", name)
    return re.sub(r"^embedding\.", "patch_embed.proj.", name)
