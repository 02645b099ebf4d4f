"""The shape of our ViT taken from timm: `model.timm=NAME` stands for knobs of an architecture.

It is no knob of its own. Where people write knobs (`--set`, a study file) it is spelled out as what
it stands for, so a configuration holds the shape itself. What is written beside it wins.

Where the two differ in what is learned they compute the same from timm's weights: a bias that timm
leaves out is 0 at the start, a position of a register is added to the register itself, and a
distillation token is a register.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from trainers.adapters.timm_models import described
from trainers.config import ModelConfig, shown
from trainers.errors import ConfigError, InputError, listed

NAME = "model.timm"


def spelled(change: Mapping[str, Any]) -> dict[str, Any]:
    """`change` with the knobs of the architecture that `model.timm` names in place of the name.

    Raises ConfigError, one line, for a name that timm does not know or a part that ours lacks.
    """
    rest = {knob: value for knob, value in change.items() if knob != NAME}
    return {**timm_knobs(change[NAME]), **rest} if NAME in change else rest


def timm_knobs(name: Any) -> dict[str, Any]:
    """The dotted knobs that give our ViT the shape of timm's `name`. Raises ConfigError as above.

    Nothing is downloaded: a tag behind a dot, which names weights, says nothing of the shape.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{NAME} must be the name of a timm ViT, got {shown(name)}")
    try:
        model = described(name)
    except InputError as error:
        raise ConfigError(f"{NAME} {error}") from error
    try:
        shape = shape_of(model)
    except InputError as error:
        raise ConfigError(f"{NAME} {name} cannot be trained here: {error}") from error
    return {f"model.{knob}": value for knob, value in shape.items()}


def shape_of(model: Any) -> dict[str, Any]:
    """Knobs of our ViT that make it the timm `model`, whatever its values.

    Raises InputError, one line, with every part that ours does not have.
    """
    if lacking := list(dict.fromkeys(_lacking(model))):
        raise InputError(f"our ViT has no {listed(lacking)}")
    block = model.blocks[0]
    has_cls = model.cls_token is not None
    shape: dict[str, Any] = {
        "patch_size": model.patch_embed.proj.kernel_size[0],
        "width": model.embed_dim,
        "depth": len(model.blocks),
        "heads": block.attn.num_heads,
        **mlp_knobs(*_mlp_sizes(block.mlp), model.embed_dim),
        "layer_scale": float(_scales(block)[1] or 0.0),
        "norm_epsilon": model.norm.eps,
        "patch_position": "none" if model.pos_embed is None else "learned",
        "cls": has_cls,
        "cls_position": "none",
        "registers": model.num_prefix_tokens - has_cls,
    }
    if has_cls and model.pos_embed is not None and not model.no_embed_class:
        shape["cls_position"] = "learned"
    if rotation := getattr(model, "rope", None):
        shape |= {
            "patch_position": "rotary",
            "rotary_base": rotation.temperature,
            "rotary_origin": "centre",
        }
    made = ModelConfig(**shape)
    if made.mlp_hidden != (hidden := _mlp_sizes(block.mlp)[1]):
        raise InputError(
            f"our ViT has no {made.mlp} MLP of {hidden} hidden features, {made.mlp_hidden} is near"
        )
    return shape


def mlp_knobs(rows: int, hidden: int, width: int) -> dict[str, Any]:
    """Knobs of an MLP whose first matrix has `rows`, and whose second takes `hidden` features."""
    if rows != 2 * hidden:
        ratio = rows / width
        # Of a width that is no power of two, the quotient may be rounded down.
        return {
            "mlp": "gelu",
            "mlp_ratio": ratio if int(width * ratio) == rows else (rows + 0.5) / width,
        }
    # Of a SwiGLU the ratio is that of an MLP with as many parameters; usually 4.
    usual = ModelConfig(width=width, heads=1, mlp="swiglu", mlp_ratio=4.0)
    ratio = 4.0 if usual.mlp_hidden == hidden else 1.5 * hidden / width
    return {"mlp": "swiglu", "mlp_ratio": ratio}


def _mlp_sizes(mlp: Any) -> tuple[int, int]:
    first = (mlp.fc1_g, mlp.fc1_x) if hasattr(mlp, "fc1_g") else (mlp.fc1,)
    return sum(part.out_features for part in first), mlp.fc2.in_features


def _scales(block: Any) -> tuple[bool, float | None]:
    """Whether both branches have factors of LayerScale or none, and the first value of these."""
    if hasattr(block, "gamma_1"):
        has = block.gamma_1 is not None, block.gamma_2 is not None
        return has[0] == has[1], block.init_values if all(has) else None
    has = hasattr(block.ls1, "gamma"), hasattr(block.ls2, "gamma")
    return has[0] == has[1], block.ls1.init_values if all(has) else None


def _lacking(model: Any) -> Iterator[str]:
    """Parts of a timm ViT that ours does not have, in words."""
    patches, convolution = model.patch_embed, getattr(model.patch_embed, "proj", None)
    if _kind(patches) != "PatchEmbed" or not isinstance(convolution, nn.Conv2d):
        yield f"stem before its patches ({_kind(patches)})"
    else:
        sides = {*convolution.kernel_size, *convolution.stride}
        if len(sides) != 1:
            yield "patches that overlap or are not square"
        if convolution.in_channels != 3:
            yield f"images of {convolution.in_channels} channels"
        if not _is_nothing(patches.norm) or not _is_nothing(model.norm_pre):
            yield "norm before the first block"
    yield from _lacking_positions(model)
    for block in model.blocks:
        yield from _lacking_in(block, model.embed_dim, getattr(model.norm, "eps", None))
    if _is_nothing(model.norm):
        yield "last norm that comes behind pooling"
    elif not isinstance(model.norm, nn.LayerNorm):
        yield f"norm other than LayerNorm ({_kind(model.norm)})"


def _lacking_positions(model: Any) -> Iterator[str]:
    rotation, patches = getattr(model, "rope", None), model.patch_embed
    if rotation is not None:
        like_dinov3 = _kind(rotation) == "RotaryEmbeddingDinoV3" and (
            rotation.rotate_half
            and rotation.normalize_coords == "separate"
            and rotation.min_period is None
            and rotation.grid_offset == 0
            and rotation.grid_indexing == "ij"
        )
        if not like_dinov3:
            yield f"rotary positions other than DINOv3's ({_kind(rotation)})"
        if model.pos_embed is not None:
            yield "positions both learned and rotary"
    if model.pos_embed is not None:
        slots = 0 if model.no_embed_class else model.num_prefix_tokens
        rows, columns = patches.grid_size
        if model.pos_embed.shape[1:] != (rows * columns + slots, model.embed_dim):
            yield "positions that are not one for each patch"
        if rows != columns:
            yield "learned positions of a grid that is not square"


def _lacking_in(block: Any, width: int, epsilon: float | None) -> Iterator[str]:
    if _kind(block) not in ("Block", "EvaBlock"):
        yield f"block of this kind ({_kind(block)})"
        return
    attention, mlp = block.attn, block.mlp
    for norm in (block.norm1, block.norm2):
        if not isinstance(norm, nn.LayerNorm):
            yield f"norm other than LayerNorm ({_kind(norm)})"
        elif epsilon is not None and norm.eps != epsilon:
            yield "norms that differ in their epsilon"
    if _kind(attention) not in ("Attention", "AttentionRope", "EvaAttention"):
        yield f"attention of this kind ({_kind(attention)})"
    else:
        if not (_is_nothing(attention.q_norm) and _is_nothing(attention.k_norm)):
            yield "norm of queries and keys"
        if not _is_nothing(attention.norm):
            yield "norm within attention"
        if getattr(attention, "gate", None) is not None:
            yield "gate of attention"
        if attention.num_heads * attention.head_dim != width:
            yield "heads that are together wider or narrower than a token"
        if getattr(attention, "num_kv_heads", attention.num_heads) != attention.num_heads:
            yield "keys that several heads share"
        if attention.qkv is None:
            yield "queries, keys and values that are made apart"
    if _kind(mlp) not in ("Mlp", "GluMlp", "SwiGLU"):
        yield f"MLP of this kind ({_kind(mlp)})"
        return
    if not _is_nothing(mlp.norm):
        yield "norm within the MLP"
    usual = _kind(mlp.act) == ("GELU" if _kind(mlp) == "Mlp" else "SiLU")
    if not usual or getattr(mlp.act, "approximate", "none") != "none":
        yield f"{_kind(mlp)} with this activation ({_kind(mlp.act)})"
    if getattr(mlp, "gate_last", False):
        yield "SwiGLU with its gate last"
    if not _scales(block)[0]:
        yield "LayerScale of one branch alone"


def _kind(module: Any) -> str:
    return type(module).__name__


def _is_nothing(module: Any) -> bool:
    return module is None or isinstance(module, nn.Identity)
