"""Foreign backbones that can be measured: any timm ViT, with and without rotary positions.

Our own model returns its queries and keys as values. A foreign one is watched instead: what enters
and leaves each attention module is caught on the way, and its queries and keys are made again from
its own weights. When a backbone is opened this is checked once: attention made from them must give
what the module itself gave.
"""

import functools
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.adapters.pretrained import read_weights
from trainers.config import nearest
from trainers.errors import CheckpointError, InputError, first_line
from trainers.model.vit import Features, Layer, Observer
from trainers.randomness.forward_draws import ForwardDraws

TOLERANCE = 1e-4
"""Largest difference between an attention module's output and ours of its queries and keys."""


class TimmBackbone(nn.Module):
    """A timm ViT (`VisionTransformer` or `Eva`) with the forward contract of our own.

    Tokens between [CLS] and the patches count as registers, whatever timm calls them. Raises
    InputError when an attention module is of a kind whose queries and keys are not known.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.name = name
        self.model = typing.cast(Any, model.eval())
        self.has_cls: bool = self.model.cls_token is not None
        self.registers_count: int = self.model.num_prefix_tokens - self.has_cls
        self.patch_size: tuple[int, int] = tuple(self.model.patch_embed.patch_size)
        self.image_size: tuple[int, int] = tuple(self.model.patch_embed.img_size)
        for number, block in enumerate(self.model.blocks):
            if not hasattr(block, "attn"):
                raise InputError(
                    f"{name}: blocks.{number} ({type(block).__name__}) has no attention module "
                    "of its own that could be measured"
                )
        self._check()

    def forward(
        self,
        images: Tensor,
        draws: ForwardDraws | None = None,
        *,
        only_first: bool = False,
        observe: Observer | None = None,
    ) -> Features:
        """Features of images [B, 3, S, S], normalised as the model wants them.

        `observe` is handed each layer in turn, its queries and keys after their norms and
        rotations. `draws` are ignored. Raises InputError when S is no multiple of the patch.
        """
        grid = self._grid(images)
        if observe is None:
            tokens = self.model.forward_features(images)
        else:
            with _watched(self.model.blocks, lambda *seen: observe(_layer(*seen))):
                tokens = self.model.forward_features(images)
        return Features(
            tokens=tokens[:, : self.has_cls + self.registers_count] if only_first else tokens,
            grid=grid,
            has_cls=self.has_cls,
            registers_count=self.registers_count,
        )

    def _grid(self, images: Tensor) -> tuple[int, int]:
        rows, columns = self.patch_size
        height, width = images.shape[2:]
        if height % rows or width % columns:
            raise InputError(
                f"{self.name}: images of {height}×{width} pixels are no whole number of "
                f"{rows}×{columns} patches"
            )
        return height // rows, width // columns

    @torch.no_grad()
    def _check(self) -> None:
        """Compare what every attention module gave with what its queries and keys give."""
        generator = torch.Generator().manual_seed(0)
        weight = next(self.model.parameters())
        images = torch.randn(1, 3, *self.image_size, generator=generator).to(weight)
        with _watched(self.model.blocks, self._compare):
            self.model.forward_features(images)

    def _compare(self, seen: "_Attended", number: int, _: Tensor) -> None:
        where = f"{self.name}: blocks.{number}.attn ({type(seen.module).__name__})"
        try:
            queries, keys, values = _queries_keys_values(seen)
            made = _mixed(seen.module, seen.tokens, queries, keys, values)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{where} is of a kind that cannot be measured: {error}") from error
        if made.shape != seen.output.shape or not torch.allclose(made, seen.output, atol=TOLERANCE):
            raise InputError(
                f"{where} is of a kind that cannot be measured: softmax(q kᵀ / √K) of its "
                "queries and keys does not give its output"
            )


@dataclass(frozen=True)
class _Attended:
    """What entered and left an attention module."""

    module: Any
    tokens: Tensor
    rotation: Tensor | None
    projected: Tensor | None
    """queries, keys and values side by side, where the module made them in one"""
    output: Tensor


@contextmanager
def _watched(blocks: Any, see: Callable[[_Attended, int, Tensor], None]) -> Iterator[None]:
    """Call `see` with what went through the attention of each block, its number from 0, and what
    left the block."""
    attended: list[_Attended] = []
    projected: list[Tensor] = []

    def made(_: Any, __: Any, output: Tensor) -> None:
        projected.append(output)

    def caught(module: Any, given: Any, named: dict[str, Any], output: Tensor) -> None:
        rotation = named.get("rope", given[1] if len(given) > 1 else None)
        together = projected.pop() if projected else None
        attended.append(_Attended(module, given[0], rotation, together, output))

    def left(number: int, _: Any, __: Any, output: Tensor) -> None:
        see(attended.pop(), number, output)

    hooks = []
    for number, block in enumerate(blocks):
        if isinstance(getattr(block.attn, "qkv", None), nn.Module):
            hooks.append(block.attn.qkv.register_forward_hook(made))
        hooks.append(block.attn.register_forward_hook(caught, with_kwargs=True))
        hooks.append(block.register_forward_hook(functools.partial(left, number)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _layer(seen: _Attended, number: int, output: Tensor) -> Layer:
    queries, keys, values = _queries_keys_values(seen)
    return Layer(
        number=number + 1,
        queries=queries,
        keys=keys,
        values=values,
        projection=seen.module.proj.weight.T.unflatten(0, (-1, values.shape[-1])),
        normalised=seen.tokens,
        tokens=output,
    )


def _queries_keys_values(seen: _Attended) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys after norms and rotation, and values, [B, H, T, K] each."""
    attention, tokens_BTD, rotation = seen.module, seen.tokens, seen.rotation
    parts: list[Tensor]
    if seen.projected is not None:
        parts = list(seen.projected.chunk(3, dim=-1))
    elif attention.qkv is None:
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        parts = [projection(tokens_BTD) for projection in projections]
    else:
        bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
        parts = list(functional.linear(tokens_BTD, attention.qkv.weight, bias).chunk(3, dim=-1))
    queries, keys, values = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts
    )
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    if rotation is not None:
        first, half = attention.num_prefix_tokens, getattr(attention, "rotate_half", False)
        queries = _rotated(queries, rotation, first, half).type_as(values)
        keys = _rotated(keys, rotation, first, half).type_as(values)
    return queries, keys, values


def _rotated(heads_BHTK: Tensor, rotation: Tensor, first: int, half: bool) -> Tensor:
    """The tokens behind the `first` turned by `rotation` [..., N, 2 K]: sines, then cosines.

    Feature k is turned against k + K/2 with `half`, otherwise neighbours against each other.
    """
    sine, cosine = rotation.chunk(2, dim=-1)
    unturned, patches = heads_BHTK[:, :, :first], heads_BHTK[:, :, first:]
    if half:
        one, other = patches.chunk(2, dim=-1)
        across = torch.cat([-other, one], dim=-1)
    else:
        across = torch.stack([-patches[..., 1::2], patches[..., ::2]], dim=-1).flatten(-2)
    return torch.cat([unturned, patches * cosine + across * sine], dim=2)


def _mixed(
    attention: Any, tokens_BTD: Tensor, queries: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """What the attention module makes of its queries, keys and values."""
    weights = torch.softmax(queries @ keys.transpose(2, 3) / queries.shape[-1] ** 0.5, dim=-1)
    mixed = attention.norm((weights @ values).transpose(1, 2).flatten(2))
    if getattr(attention, "gate", None) is not None:
        mixed = mixed * attention.gate(tokens_BTD).sigmoid()
    made: Tensor = attention.proj(mixed)
    return made


def open_timm(
    name: str,
    weights: Path | None = None,
    *,
    published: bool = False,
    image_size: int | None = None,
) -> TimmBackbone:
    """The timm ViT `name`, frozen, on the CPU, for images of any multiple of its patch size.

    Its values come from the file `weights` (timm's own names; a classifier in it is not used),
    from timm's published weights, which are downloaded, or else are random. `image_size` is by
    default the model's own, pixels. Raises InputError for a name that timm does not know or that
    is no ViT, with the nearest names; for a model whose attention cannot be measured; when timm is
    not installed or published weights cannot be had. CheckpointError when the file does not fit.
    """
    need_timm(name)
    import timm
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    vits = timm.list_models(module="vision_transformer") + timm.list_models(module="eva")
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(f"{name}: timm has no such model{nearest(name, vits, most=3)}")
    size: dict[str, Any] = {} if image_size is None else {"img_size": image_size}
    try:
        with torch.device("meta"):
            kind = type(timm.create_model(name, num_classes=0))
        if not issubclass(kind, (VisionTransformer, Eva)):
            raise InputError(f"{name}: {kind.__name__} is no ViT{nearest(name, vits, most=3)}")
        model = timm.create_model(
            name, pretrained=published, num_classes=0, dynamic_img_size=True, **size
        )
    except (RuntimeError, OSError, TypeError, ValueError, AssertionError) as error:
        raise InputError(f"{name}: timm cannot make this model: {first_line(error)}") from error
    if weights is not None:
        _load(model, weights)
    return TimmBackbone(model.requires_grad_(False), name)


def need_timm(name: str) -> None:
    """Raise InputError, saying what to install, when timm, which `name` needs, is not there."""
    try:
        import timm  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{name}: timm is not installed; pip install 'dinolab[measure]'"
        ) from error


def _load(model: nn.Module, path: Path) -> None:
    """Take every value of `model` from the file at `path`, leaving out a classifier."""
    tensors = {n: t for n, t in read_weights(path).items() if not n.startswith("head.")}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = "; ".join(line.strip().rstrip(".") for line in str(error).splitlines()[1:])
        raise CheckpointError(f"weights {path} do not fit this model: {reason}") from error
