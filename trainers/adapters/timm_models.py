"""Foreign backbones that can be measured: any timm ViT, with and without rotary positions.

Our own model returns its queries and keys as values. A foreign one is watched instead: what enters
and leaves each attention module is caught on the way, and its queries and keys are made again from
its own weights. When a backbone is opened this is checked once: attention made from them must give
what the module itself gave.
"""

import functools
import math
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.adapters.timm_weights import size_of_positions, take_weights
from trainers.config import nearest
from trainers.errors import InputError, first_line, printable
from trainers.model.vit import Features, Layer, Observer
from trainers.randomness.forward_draws import ForwardDraws

TOLERANCE = 1e-4
"""Largest difference between an attention module's output and ours of its queries and keys."""


class TimmBackbone(nn.Module):
    """A timm ViT (`VisionTransformer` or `Eva`) with the forward contract of our own.

    Tokens between [CLS] and the patches count as registers, whatever timm calls them. A patch is
    what one token stands for, also behind a stem of convolutions. Where the model's own images are
    no whole number of patches, `image_size` is what is left when the rest is cut off. Raises
    InputError when an attention module is of a kind whose queries and keys are not known, or when
    the tokens make no such grid.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        *,
        set_aside: tuple[str, ...] = (),
        resized: bool = False,
    ) -> None:
        """`set_aside` are names in its weights that it has no use for; `resized` says whether the
        side of its images was taken from its weights."""
        super().__init__()
        self.name, self.set_aside, self.resized = name, set_aside, resized
        self.model = typing.cast(Any, model.eval())
        self.has_cls: bool = self.model.cls_token is not None
        self.registers_count: int = self.model.num_prefix_tokens - self.has_cls
        rows, columns = self.model.patch_embed.feat_ratio(as_scalar=False)
        height, width = self.model.patch_embed.img_size
        self.patch_size: tuple[int, int] = (rows, columns)
        self.own_size: tuple[int, int] = (height, width)
        self.image_size: tuple[int, int] = (height // rows * rows, width // columns * columns)
        for number, block in enumerate(self.model.blocks):
            if not hasattr(block, "attn"):
                raise InputError(
                    f"{name}: blocks.{number} ({type(block).__name__}) has no attention module "
                    "of its own that could be measured"
                )
        self._check()

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """Its blocks, in order."""
        found: Iterable[nn.Module] = self.model.blocks
        return found

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
        rotations. `draws` are ignored. Raises InputError when S is no multiple of the patch, or
        the patches make no such grid.
        """
        see = None if observe is None else lambda *seen: observe(_layer(*seen))
        tokens, grid = self._tokens(images, see)
        return Features(
            tokens=tokens[:, : self.has_cls + self.registers_count] if only_first else tokens,
            grid=grid,
            has_cls=self.has_cls,
            registers_count=self.registers_count,
        )

    def _tokens(self, images: Tensor, see: "_See | None") -> tuple[Tensor, tuple[int, int]]:
        """Tokens [B, T, D] and the grid of those of patches; `see` as of `_watched`."""
        grid = self._grid(images)
        with nullcontext() if see is None else _watched(self.model.blocks, see):
            tokens: Tensor = self.model.forward_features(images)
        patches = tokens.shape[1] - self.has_cls - self.registers_count
        if patches != grid[0] * grid[1]:
            raise InputError(
                f"{self.name}: images of {images.shape[2]}×{images.shape[3]} pixels become "
                f"{patches} patches, not {grid[0]}×{grid[1]}: this size cannot be measured"
            )
        return tokens, grid

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
    def check_size(self, side: int) -> None:
        """Raise InputError when images of `side` pixels a side do not become a grid of patches."""
        weight = next(self.model.parameters())
        images = torch.zeros(1, 3, side, side).to(weight)
        grid = self._grid(images)
        try:
            made = tuple(self.model.patch_embed(images).shape[1:-1])
        except (RuntimeError, AssertionError, ValueError) as error:
            raise InputError(
                f"{self.name}: images of {side} pixels cannot be measured: "
                f"{printable(first_line(error))}"
            ) from error
        if made != grid and made != (math.prod(grid),):
            raise InputError(
                f"{self.name}: images of {side} pixels become {'×'.join(map(str, made))} patches, "
                f"not {grid[0]}×{grid[1]}: this size cannot be measured"
            )

    @torch.no_grad()
    def _check(self) -> None:
        """Compare what every attention module gave with what its queries and keys give."""
        generator = torch.Generator().manual_seed(0)
        weight = next(self.model.parameters())
        images = torch.randn(1, 3, *self.image_size, generator=generator).to(weight)
        try:
            self._tokens(images, self._compare)
        except (RuntimeError, AssertionError, IndexError, ValueError) as error:
            raise InputError(
                f"{self.name} cannot be measured: {printable(first_line(error))}"
            ) from error

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
    scale: Tensor | None
    """[D], what LayerScale multiplies the output with"""


_See = Callable[[_Attended, int, Tensor], None]


@contextmanager
def _watched(blocks: Any, see: _See) -> Iterator[None]:
    """Call `see` with what went through the attention of each block, its number from 0, and what
    left the block."""
    attended: list[_Attended] = []
    projected: list[Tensor] = []

    def made(_: Any, __: Any, output: Tensor) -> None:
        projected.append(output)

    def caught(
        scale: Tensor | None, module: Any, given: Any, named: dict[str, Any], output: Tensor
    ) -> None:
        rotation = named.get("rope", given[1] if len(given) > 1 else None)
        together = projected.pop() if projected else None
        attended.append(_Attended(module, given[0], rotation, together, output, scale))

    def left(number: int, _: Any, __: Any, output: Tensor) -> None:
        see(attended.pop(), number, output)

    hooks = []
    for number, block in enumerate(blocks):
        if isinstance(getattr(block.attn, "qkv", None), nn.Module):
            hooks.append(block.attn.qkv.register_forward_hook(made))
        # BEiT's blocks hold their factors themselves.
        scale = getattr(getattr(block, "ls1", None), "gamma", getattr(block, "gamma_1", None))
        watch = functools.partial(caught, scale)
        hooks.append(block.attn.register_forward_hook(watch, with_kwargs=True))
        hooks.append(block.register_forward_hook(functools.partial(left, number)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _layer(seen: _Attended, number: int, output: Tensor) -> Layer:
    queries, keys, values = _queries_keys_values(seen)
    projection = seen.module.proj.weight.T.unflatten(0, (-1, values.shape[-1]))
    return Layer(
        number=number + 1,
        queries=queries,
        keys=keys,
        values=values,
        projection=projection if seen.scale is None else projection * seen.scale,
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
    weights: Mapping[str, Tensor] | None = None,
    *,
    published: bool = False,
    image_size: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> TimmBackbone:
    """The timm ViT `name`, frozen, on the CPU, for images of any multiple of its patch size.

    Its values are `weights`, named as timm names them or as a published file that timm knows how to
    translate; or timm's published weights, which are downloaded; or else random. `image_size` is by
    default that of the positions in `weights`, or the model's own, pixels; `options` are those of
    `timm.create_model`. Raises InputError for a name that timm does not know or that is no ViT,
    with the nearest names; for a model whose attention cannot be measured; when timm is not
    installed or published weights cannot be had. CheckpointError when `weights` do not fit.
    """
    given = {**(options or {}), "num_classes": 0}
    if image_size is not None:
        given["img_size"] = image_size
    shape, resized = described(name, given), None
    import timm

    try:
        if weights is not None and image_size is None:
            resized = size_of_positions(shape, weights)
        if resized is not None:
            given["img_size"] = resized
        given["dynamic_img_size"] = True
        model = timm.create_model(name, pretrained=published, **given)
    except _CANNOT_MAKE as error:
        raise _not_made(name, error) from error
    aside = () if weights is None else take_weights(model, name, weights)
    model.requires_grad_(False)
    return TimmBackbone(model, name, set_aside=aside, resized=resized is not None)


def described(name: str, options: Mapping[str, Any] | None = None) -> Any:
    """The timm ViT `name` without its values, on the meta device, without a classifier.

    Raises InputError as `open_timm` does of names.
    """
    need_timm(name)
    import timm
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    vits = timm.list_models(module="vision_transformer") + timm.list_models(module="eva")
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(f"{printable(name)}: timm has no such model{nearest(name, vits, most=3)}")
    try:
        with torch.device("meta"):
            shape = timm.create_model(name, **{**(options or {}), "num_classes": 0})
    except _CANNOT_MAKE as error:
        raise _not_made(name, error) from error
    if not isinstance(shape, (VisionTransformer, Eva)):
        raise InputError(f"{name}: {type(shape).__name__} is no ViT{nearest(name, vits, most=3)}")
    return shape


_CANNOT_MAKE = (RuntimeError, OSError, TypeError, ValueError, AssertionError, AttributeError)
"""What timm raises where it cannot make a model."""


def _not_made(name: str, error: Exception) -> InputError:
    return InputError(f"{name}: timm cannot make this model: {printable(first_line(error))}")


def need_timm(name: str) -> None:
    """Raise InputError, saying what to install, when timm, which `name` needs, is not there."""
    try:
        import timm  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{name}: timm is not installed; pip install 'dinolab[measure]'"
        ) from error
