"""Batched multi-crop on the device, from keyed randomness (Caron et al. 2021, appendix A).

Every draw of a crop is keyed by (epoch, image, view, draw), so what an image looks like in a view
depends on nothing else: not on the arm, not on the batch, not on the number of workers. A crop's
box is drawn in the image's original geometry; cutting and resampling are two batched products with
antialiased bilinear weights. Pixels are rounded to 8 bits, as in an image file.

Shapes: B images, V views of one kind, S side in pixels.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainers.config import AugmentConfig
from trainers.forward_draws import Keyed, keyed
from trainers.keys import Stream

Draws = dict[str, Tensor]

_DRAWS = (
    "area", "ratio", "top", "left", "flip", "jitter", "brightness", "contrast", "saturation",
    "hue", "grayscale", "blur", "sigma", "solarize",
)  # fmt: skip
_SLOTS_A_VIEW = 64
_SLOTS_AN_EPOCH = 2**20
_LUMA = (0.299, 0.587, 0.114)
_YIQ = (_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True, kw_only=True)
class Views:
    """Crops of one batch: float32 in [0, 1], the rows of one view after those of another."""

    global_crops: Tensor
    """[global_crops · B, 3, global_size, global_size]"""
    local_crops: Tensor
    """[local_crops · B, 3, local_size, local_size]"""
    digest: Tensor
    """int64 [B]: a hash of the bits of all crops of an image"""


def draw(stream: Stream, epochs: Tensor, identifiers: Tensor, views: range) -> Draws:
    """Uniform numbers in [0, 1), each [V · B], by the name of what they decide."""
    device = identifiers.device
    view = torch.tensor(list(views), device=device)[None, :, None]
    slot = torch.arange(len(_DRAWS), device=device)[:, None, None]
    minor = epochs * _SLOTS_AN_EPOCH + view * _SLOTS_A_VIEW + slot
    uniforms = stream.uniform(identifiers, minor).flatten(1)
    return dict(zip(_DRAWS, uniforms.unbind(0), strict=True))


def crop_boxes(
    draws: Draws, aspect: Tensor, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Boxes (top, left, height, width) in shares of the image, float32 [V · B, 4], inside [0, 1].

    The box covers a uniform share `scale` of the area, at a log-uniform width over height `ratio`
    measured in the original image of the given `aspect` [V · B] (width over height). A side that
    would stick out is cut to the image's.
    """
    area = scale[0] + draws["area"] * (scale[1] - scale[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = torch.exp(low + draws["ratio"] * (high - low)) / aspect
    height = torch.sqrt(area / shape).clamp(max=1.0)
    width = torch.sqrt(area * shape).clamp(max=1.0)
    return torch.stack(
        [draws["top"] * (1 - height), draws["left"] * (1 - width), height, width], dim=1
    )


def whole_square(aspect: Tensor) -> Tensor:
    """The largest centred square of each original image as a box in shares of it, [B, 4]."""
    height = aspect.clamp(max=1.0)
    width = (1 / aspect).clamp(max=1.0)
    return torch.stack([(1 - height) / 2, (1 - width) / 2, height, width], dim=1)


def resample(images: Tensor, boxes: Tensor, size: int, flip: Tensor) -> Tensor:
    """Cut boxes [V · B, 4] out of images [B, 3, S, S] and resize: float32 [V · B, 3, size, size].

    Antialiased bilinear; values keep their range. `flip` [V · B] mirrors left and right.
    """
    side = images.shape[-1]
    top, left, height, width = boxes.unbind(1)
    rows = _weights(top, height, side, size, torch.zeros_like(flip))
    columns = _weights(left, width, side, size, flip)
    by_view = (-1, len(images), 1, size, side)
    return (rows.view(by_view) @ images @ columns.view(by_view).transpose(3, 4)).flatten(0, 1)


def _weights(start: Tensor, extent: Tensor, source: int, target: int, flip: Tensor) -> Tensor:
    """Resampling weights along one axis, [V · B, target, source]; rows sum to 1."""
    step = extent * (source / target)
    places = torch.arange(target, device=start.device, dtype=torch.float32) + 0.5
    places = torch.where(flip[:, None], target - places, places)
    centres = start[:, None] * source + places * step[:, None]
    pixels = torch.arange(source, device=start.device, dtype=torch.float32) + 0.5
    support = step.clamp(min=1.0)[:, None, None]
    weights = (1 - (pixels - centres[..., None]).abs() / support).clamp(min=0)
    return weights / weights.sum(-1, keepdim=True)


def augment(
    images: Tensor,
    aspect: Tensor,
    identifiers: Tensor,
    epochs: Tensor,
    config: AugmentConfig,
    stream: Stream,
    patch_size: int,
) -> Views:
    """All crops of a batch; `patch_size` is that of the patches that shuffling moves.

    `images` uint8 [B, 3, S, S], `aspect` float32 [B] (original width over height); `identifiers`
    and `epochs`, int64 [B], key the draws.
    """
    pixels = images.to(torch.float32) / 255
    first_local = config.global_crops
    views_of = (range(first_local), range(first_local, first_local + config.local_crops))
    blurs = (
        [config.blur_first] + [config.blur_others] * (config.global_crops - 1),
        [config.blur_local] * config.local_crops,
    )
    solarizes = (
        [0.0] + [config.solarize] * (config.global_crops - 1),
        [0.0] * config.local_crops,
    )
    scales = (config.global_scale, config.local_scale)
    sizes = (config.global_size, config.local_size)
    groups = []
    total = torch.zeros_like(identifiers)
    for views, blur_share, solarize_share, scale, size in zip(
        views_of, blurs, solarizes, scales, sizes, strict=True
    ):
        if not views:
            groups.append(pixels.new_zeros(0, 3, size, size))
            continue
        draws = draw(stream, epochs, identifiers, views)
        boxes = crop_boxes(draws, aspect.repeat(len(views)), scale, config.aspect_ratio)
        crops = resample(pixels, boxes, size, draws["flip"] < config.flip)
        crops = _recolour(crops, draws, config, blur_share, solarize_share)
        crops = (crops * 255).round() / 255
        if config.shuffle != "none":
            block = patch_size if config.shuffle == "patches" else 1
            crops = shuffle(crops, keyed(stream.seed, "shuffle", identifiers, epochs, views), block)
        total += digest(crops, views)
        groups.append(crops)
    return Views(global_crops=groups[0], local_crops=groups[1], digest=total)


def _recolour(
    crops: Tensor,
    draws: Draws,
    config: AugmentConfig,
    blur_share: list[float],
    solarize_share: list[float],
) -> Tensor:
    """Jitter, grey, blur and solarise crops [V · B, 3, S, S], each with its probability."""

    def chosen(name: str, share: list[float]) -> Tensor:
        shares = torch.tensor(share, device=crops.device).repeat_interleave(
            len(crops) // len(share)
        )
        return (draws[name] < shares)[:, None, None, None]

    every = [1.0] * len(blur_share)
    if config.jitter:
        share = [config.jitter * one for one in every]
        crops = torch.where(chosen("jitter", share), jitter(crops, draws, config), crops)
    if config.grayscale:
        share = [config.grayscale * one for one in every]
        crops = torch.where(chosen("grayscale", share), _grey(crops).expand_as(crops), crops)
    if any(blur_share):
        low, high = config.blur_sigma
        blurred = blur(crops, low + draws["sigma"] * (high - low))
        crops = torch.where(chosen("blur", blur_share), blurred, crops)
    if any(solarize_share):
        inverted = torch.where(crops < 0.5, crops, 1 - crops)
        crops = torch.where(chosen("solarize", solarize_share), inverted, crops)
    return crops


def shuffle(crops: Tensor, source: Keyed, block: int) -> Tensor:
    """Crops [V · B, 3, S, S] with their blocks of `block` × `block` pixels in a keyed order."""
    side = crops.shape[-1] // block
    order = source.uniform(side * side).argsort(dim=1, stable=True)
    blocks = functional.unfold(crops, block, stride=block)
    moved = blocks.gather(2, order[:, None].expand_as(blocks))
    return functional.fold(moved, (side * block, side * block), block, stride=block)


def _grey(crops: Tensor) -> Tensor:
    return (crops * torch.tensor(_LUMA, device=crops.device)[:, None, None]).sum(1, keepdim=True)


def jitter(crops: Tensor, draws: Draws, config: AugmentConfig) -> Tensor:
    """Brightness, contrast, saturation and hue, in this order, on crops in [0, 1].

    Hue is a rotation in the chroma plane of YIQ, a linear map.
    """

    def factor(name: str, strength: float) -> Tensor:
        return (1 + (2 * draws[name] - 1) * strength)[:, None, None, None]

    crops = (crops * factor("brightness", config.brightness)).clamp(0, 1)
    mean = _grey(crops).mean((2, 3), keepdim=True)
    crops = (mean + (crops - mean) * factor("contrast", config.contrast)).clamp(0, 1)
    grey = _grey(crops)
    crops = (grey + (crops - grey) * factor("saturation", config.saturation)).clamp(0, 1)
    if config.hue:
        crops = _rotate_hue(crops, (2 * draws["hue"] - 1) * config.hue)
    return crops


def _rotate_hue(crops: Tensor, turns: Tensor) -> Tensor:
    to_yiq = torch.tensor(_YIQ, device=crops.device)
    cosine, sine = torch.cos(turns * (2 * math.pi)), torch.sin(turns * (2 * math.pi))
    rotation = torch.zeros(len(crops), 3, 3, device=crops.device)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = cosine
    rotation[:, 2, 1], rotation[:, 1, 2] = sine, -sine
    whole = torch.linalg.inv(to_yiq) @ rotation @ to_yiq
    return (whole @ crops.flatten(2)).view_as(crops).clamp(0, 1)


def blur(crops: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each crop with its own standard deviation, in pixels."""
    places = torch.arange(crops.shape[-1], device=crops.device, dtype=torch.float32)
    distance = places[:, None] - places
    weights = torch.exp(-0.5 * (distance / sigma[:, None, None]) ** 2)
    weights = (weights / weights.sum(-1, keepdim=True))[:, None]
    return weights @ crops @ weights.transpose(2, 3)


def digest(crops: Tensor, views: range) -> Tensor:
    """A 64-bit hash of the bits of all views of each image, int64 [B]: a keyed sum mod 2⁶⁴."""
    bits = crops.view(torch.int32).to(torch.int64).view(len(views), -1, crops[0].numel())
    return (bits * _digest_keys(views, crops[0].numel(), crops.device)).sum((0, 2))


@functools.cache
def _digest_keys(views: range, size: int, device: torch.device) -> Tensor:
    view = torch.tensor(list(views), device=device)[:, None, None]
    high, low, _, _ = Stream(0, "digest").bits(view, torch.arange(size, device=device))
    return (high << 32) | low | 1


def evaluation_crops(images: Tensor, aspect: Tensor, size: int) -> Tensor:
    """The centred square of each image, unaugmented: float32 [B, 3, size, size] in [0, 1]."""
    upright = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    return resample(images.to(torch.float32) / 255, whole_square(aspect), size, upright)


def normalize(crops: Tensor) -> Tensor:
    """Crops in [0, 1] standardised by ImageNet's mean and deviation, as DINO does."""
    mean = torch.tensor((0.485, 0.456, 0.406), device=crops.device)[:, None, None]
    deviation = torch.tensor((0.229, 0.224, 0.225), device=crops.device)[:, None, None]
    return (crops - mean) / deviation
