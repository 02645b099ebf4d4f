"""A backbone of ours under the names of timm and of Hugging Face's transformers.

======================================  =======================  ==================================
ours (trainers/model)                   timm's                   Hugging Face's
======================================  =======================  ==================================
``cls`` with its position               ``cls_token``            ``cls_token``, a position
``registers``                           ``reg_token``            ``register_tokens``
``position``, fixed ones as a table     ``pos_embed``            ``position_embeddings``
``embedding``                           ``patch_embed.proj``     ``patch_embeddings.projection``
``blocks.N.attention.qkv``              ``blocks.N.attn.qkv``    ``query``, ``key``, ``value``
``blocks.N.attention.projection``       ``blocks.N.attn.proj``   ``attention.output.dense``
``blocks.N.expand``, ``contract``       ``mlp.fc1``, ``mlp.fc2`` ``intermediate``, ``output``
======================================  =======================  ==================================

Features are equal at the size of the images that the positions belong to. At others timm and
transformers interpolate a table in their own ways, and a fixed code has become a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from trainers.adapters.hugging_face_models import CONFIG
from trainers.config import ModelConfig
from trainers.data.augment import IMAGENET
from trainers.errors import InputError, listed
from trainers.model.vit import VisionTransformer

PREPARATION = "preprocessor_config.json"

Filter = Literal["bilinear", "bicubic"]
_NUMBERS = {"bilinear": 2, "bicubic": 3}
"""Pillow's, of its filters."""

_TIMM_NAMES = {
    (192, 3): "vit_tiny_patch16_224",
    (384, 6): "vit_small_patch16_224",
    (768, 12): "vit_base_patch16_224",
    (1024, 16): "vit_large_patch16_224",
}
"""timm's architecture of a width and number of heads. Its other arguments are stated in full, so
any of them would do."""
_TIMM_NAME, _TIMM_GATED = "vit_tiny_patch16_224", "vit_giant_patch14_dinov2"
"""Of any other; and one whose MLP is a SwiGLU, which no argument in a file can say."""

_TRANSLATED = (
    "patch_size", "width", "depth", "heads", "mlp_ratio", "patch_position", "cls", "cls_position",
    "cls_tied_patch", "cls_coordinate", "registers", "mlp", "layer_scale", "norm_epsilon",
)  # fmt: skip
_ONLY_IN_TRAINING = ("weights", "drop_path", "initial_deviation", "interpolation_offset")
_ONLY_ROTARY = ("rotary_base", "rotary_origin")


_HUGGING_FACE_VIT = {
    "norm1": "layernorm_before",
    "attention.projection": "attention.output.dense",
    "norm2": "layernorm_after",
    "expand": "intermediate.dense",
    "contract": "output.dense",
}
_HUGGING_FACE_DINOV2 = {
    "norm1": "norm1",
    "attention.projection": "attention.output.dense",
    "norm2": "norm2",
    "expand": "mlp.fc1",
    "contract": "mlp.fc2",
    "layer_scale1": "layer_scale1.lambda1",
    "layer_scale2": "layer_scale2.lambda1",
}


def no_counterpart(model: ModelConfig, form: str) -> str:
    """Which knob makes a part that a form does not have, in words; empty if none does."""
    usual = ModelConfig()
    known = _TRANSLATED + _ONLY_IN_TRAINING + _ONLY_ROTARY
    for name in ModelConfig.model_fields:
        if name not in known and getattr(model, name) != getattr(usual, name):
            return f"model.{name} {getattr(model, name)!r} has no counterpart in {form}"
    if form == "timm" and model.norm_epsilon != usual.norm_epsilon:
        return f"model.norm_epsilon {model.norm_epsilon:g} has no counterpart in a file of timm"
    if model.patch_position == "rotary":
        return f"model.patch_position 'rotary' has no counterpart in a ViT of {form}"
    if model.cls and model.cls_position == "random":
        return f"model.cls_position 'random' has no counterpart in {form}: its [CLS] stands still"
    if form == "huggingface" and not model.cls:
        return "model.cls False has no counterpart in huggingface, whose ViTs all have a [CLS]"
    if form == "huggingface" and _like_dinov2(model) and model.mlp_ratio % 1:
        return (
            f"model.mlp_ratio {model.mlp_ratio:g} has no counterpart in huggingface beside "
            "registers, LayerScale or SwiGLU: there it is a whole number"
        )
    return ""


def _like_dinov2(model: ModelConfig) -> bool:
    """Whether it has parts that Hugging Face's classes for DINOv2 alone have."""
    return bool(model.registers or model.layer_scale) or model.mlp == "swiglu"


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    """What stands before the first block, positions folded in."""

    cls: Tensor | None
    """[1, 1, D]"""
    registers: Tensor | None
    """[1, R, D]"""
    positions: Tensor | None
    """of patches [1, N, D]"""


def _tokens(backbone: VisionTransformer) -> _Tokens:
    config = backbone.config
    return _Tokens(
        cls=backbone._positioned_cls(None) if config.cls else None,
        registers=backbone.registers if config.registers else None,
        positions=backbone._positions(backbone.grid),
    )


def for_timm(
    backbone: VisionTransformer, size: int, resampled: Filter
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors under timm's names, and the configuration that goes with them."""
    config, tokens = backbone.config, _tokens(backbone)
    tensors = _outside(backbone, "patch_embed.proj", "norm")
    # As timm has it: one table for all tokens, but of patches alone where there are registers.
    together = tokens.cls is not None and tokens.registers is None and tokens.positions is not None
    if tokens.cls is not None:
        tensors["cls_token"] = tokens.cls
    if tokens.registers is not None:
        tensors["reg_token"] = tokens.registers
    if tokens.positions is not None:
        tensors["pos_embed"] = tokens.positions
    if together:
        position = backbone.cls_position if config.cls_position == "learned" else None
        cls = backbone.cls if position is not None else tokens.cls
        assert cls is not None
        tensors["cls_token"] = cls
        own = torch.zeros_like(cls) if position is None else position
        tensors["pos_embed"] = torch.cat([own, tensors["pos_embed"]], dim=1)
    for number, block in enumerate(backbone.blocks):
        tensors |= _renamed(
            block.state_dict(),
            {
                "norm1": "norm1",
                "attention.qkv": "attn.qkv",
                "attention.projection": "attn.proj",
                "norm2": "norm2",
                "expand": "mlp.fc1",
                "contract": "mlp.fc2",
                "layer_scale1": "ls1.gamma",
                "layer_scale2": "ls2.gamma",
            },
            f"blocks.{number}.",
        )
    name, mlp_ratio = _TIMM_NAMES.get((config.width, config.heads), _TIMM_NAME), config.mlp_ratio
    if config.mlp == "swiglu":
        # timm counts both halves, and rounds down what the ratio gives.
        hidden = len(backbone.state_dict()["blocks.0.expand.bias"])
        name, mlp_ratio = _TIMM_GATED, (hidden + 0.5) / config.width
    mean, deviation = IMAGENET
    return tensors, {
        CONFIG: {
            "architecture": name,
            "num_classes": 0,
            "num_features": config.width,
            "model_args": {
                "img_size": size,
                "patch_size": config.patch_size,
                "embed_dim": config.width,
                "depth": config.depth,
                "num_heads": config.heads,
                "mlp_ratio": mlp_ratio,
                "init_values": 1.0 if config.layer_scale else None,
                "class_token": config.cls,
                "reg_tokens": config.registers,
                "no_embed_class": not together,
                "pos_embed": "none" if tokens.positions is None else "learn",
                "global_pool": "token" if config.cls else "avg",
                "fc_norm": False,
            },
            "pretrained_cfg": {
                "num_classes": 0,
                "input_size": [3, size, size],
                "fixed_input_size": True,
                "interpolation": resampled,
                "crop_pct": 1.0,
                "crop_mode": "center",
                "mean": list(mean),
                "std": list(deviation),
                "first_conv": "patch_embed.proj",
                "classifier": "head",
            },
        }
    }


def for_hugging_face(
    backbone: VisionTransformer, size: int, resampled: Filter
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors under Hugging Face's names, and the configurations that go with them."""
    config, tokens = backbone.config, _tokens(backbone)
    assert tokens.cls is not None
    own, cls = torch.zeros_like(tokens.cls), tokens.cls
    if config.cls_position == "learned":
        own, cls = backbone.cls_position, backbone.cls
    patches = tokens.positions
    if patches is None:
        patches = torch.zeros(1, backbone.grid[0] * backbone.grid[1], config.width)
    tensors = {
        "embeddings.cls_token": cls,
        "embeddings.position_embeddings": torch.cat([own, patches], dim=1),
        **_outside(backbone, "embeddings.patch_embeddings.projection", "layernorm"),
    }
    if tokens.registers is not None:
        tensors["embeddings.register_tokens"] = tokens.registers
    if _like_dinov2(config):
        mask = backbone.mask[0] if hasattr(backbone, "mask") else torch.zeros(1, config.width)
        tensors["embeddings.mask_token"] = mask
    names = dict(_HUGGING_FACE_DINOV2 if _like_dinov2(config) else _HUGGING_FACE_VIT)
    if config.mlp == "swiglu":
        names |= {"expand": "mlp.weights_in", "contract": "mlp.weights_out"}
    for number, block in enumerate(backbone.blocks):
        state, start = block.state_dict(), f"encoder.layer.{number}."
        for kind in ("weight", "bias"):
            three = state.pop(f"attention.qkv.{kind}").chunk(3)
            for name, part in zip(("query", "key", "value"), three, strict=True):
                # Of their own: safetensors saves no views.
                tensors[f"{start}attention.attention.{name}.{kind}"] = part.clone()
        if _like_dinov2(config) and not config.layer_scale:
            # Its class scales in any case.
            scales = ("layer_scale1", "layer_scale2")
            state |= {name: torch.ones(config.width) for name in scales}
        tensors |= _renamed(state, names, start)
    shape: dict[str, Any] = {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "hidden_act": "gelu",
        "layer_norm_eps": config.norm_epsilon,
        "image_size": size,
        "patch_size": config.patch_size,
        "num_channels": 3,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": config.initial_deviation,
    }
    if _like_dinov2(config):
        shape |= {
            "architectures": ["Dinov2Model"],
            "model_type": "dinov2",
            "mlp_ratio": int(config.mlp_ratio),
            "layerscale_value": 1.0,
            "use_swiglu_ffn": config.mlp == "swiglu",
        }
    else:
        shape |= {
            "architectures": ["ViTModel"],
            "model_type": "vit",
            "intermediate_size": int(config.width * config.mlp_ratio),
        }
    if config.registers:
        shape |= {
            "architectures": ["Dinov2WithRegistersModel"],
            "model_type": "dinov2_with_registers",
            "num_register_tokens": config.registers,
        }
    mean, deviation = IMAGENET
    return tensors, {
        CONFIG: shape,
        PREPARATION: {
            "image_processor_type": "BitImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": size},
            "resample": _NUMBERS[resampled],
            "do_center_crop": True,
            "crop_size": {"height": size, "width": size},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(mean),
            "image_std": list(deviation),
        },
    }


def _outside(backbone: VisionTransformer, embedding: str, norm: str) -> dict[str, Tensor]:
    """Patch embedding and last norm under their names elsewhere."""
    parts = ((backbone.embedding, embedding), (backbone.norm, norm))
    return {
        f"{name}.{kind}": tensor
        for part, name in parts
        for kind, tensor in part.state_dict().items()
    }


def _renamed(
    state: Mapping[str, Tensor], names: Mapping[str, str], start: str
) -> dict[str, Tensor]:
    """The tensors of a block under other names, all of them. Raises InputError."""
    renamed, left = {}, []
    for name, tensor in state.items():
        part, _, kind = name.rpartition(".")
        if name in names:
            renamed[start + names[name]] = tensor
        elif part in names:
            renamed[f"{start}{names[part]}.{kind}"] = tensor
        else:
            left.append(name)
    if left:
        raise InputError(
            f"blocks with {listed(left)} have no counterpart there; --to safetensors keeps them"
        )
    return renamed
