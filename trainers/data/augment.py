"""Batched multi-crop on the device, from keyed randomness (Caron et al. 2021, appendix A).

Every draw of a crop is keyed by (epoch, image, view, draw), so what an image looks like in a view
depends on nothing else: not on the arm, not on the batch, not on the number of workers. A crop's
box is drawn in the image's original geometry. Colour jitter and grey are one affine map of the
colours of a crop, applied and clamped once. Crops have 8 bits, as in an image file.

Shapes: B images, V views of one kind, n = V · B crops, S side in pixels.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainers.config import AugmentConfig
from trainers.randomness.forward_draws import Keyed, keyed
from trainers.randomness.streams import Stream, packed

Draws = dict[str, Tensor]
Colours = tuple[float, float, float]

IMAGENET: tuple[Colours, Colours] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of pixels in [0, 1], by colour."""

SMALL = 64
"""Side up to which images are always cut between pixels: rounding a box would matter."""

BLUR_REACH = 3
"""Deviations after which a blur's weights end."""

CACHED = 2**20
"""Values that are recoloured at once on a CPU."""

_DRAWS = (
    "area", "ratio", "top", "left", "flip", "jitter", "brightness", "contrast", "saturation",
    "hue", "grayscale", "blur", "sigma", "solarize",
)  # fmt: skip
_SLOTS_A_VIEW = 64
_VIEWS_AN_EPOCH = 2**14
_LUMA = (0.299, 0.587, 0.114)
_YIQ = (_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True, kw_only=True)
class Views:
    """Crops of one batch, uint8, the rows of one view after those of another."""

    global_crops: Tensor
    """[global_crops · B, 3, global_size, global_size]"""
    local_crops: Tensor
    """[local_crops · B, 3, local_size, local_size]"""
    digest: Tensor
    """int64 [B]: a hash of all crops of an image"""


def draw(stream: Stream, epochs: Tensor, identifiers: Tensor, views: range) -> Draws:
    """Uniform numbers in [0, 1), each [V · B], by the name of what they decide."""
    device = identifiers.device
    view = torch.tensor(list(views), device=device)[None, :, None]
    slot = torch.arange(len(_DRAWS), device=device)[:, None, None]
    minor = packed(epochs, view, slot, _VIEWS_AN_EPOCH, _SLOTS_A_VIEW)
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


def cut(images: Tensor, boxes: Tensor, size: int, flip: Tensor) -> Tensor:
    """Cut boxes [V · B, 4] out of images [B, 3, S, S] and resize: uint8 [V · B, 3, size, size].

    Antialiased bilinear. `flip` [V · B] mirrors left and right. On a CPU, boxes of large images are
    rounded to whole pixels, which integer arithmetic resizes several times faster.
    """
    if images.device.type == "cpu" and images.shape[-1] > SMALL:
        return _cut_whole_pixels(images, boxes, size, flip)
    crops = resample(images.to(torch.float32), boxes, size, flip)
    return crops.add_(0.5).to(torch.uint8)


def _cut_whole_pixels(images: Tensor, boxes: Tensor, size: int, flip: Tensor) -> Tensor:
    side = images.shape[-1]
    corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
    top, left, bottom, right = (corners * side).round().to(torch.int64).unbind(1)
    bottom, right = torch.maximum(bottom, top + 1), torch.maximum(right, left + 1)
    # A row at the far border may have been pushed over it.
    top, left = (
        torch.minimum(top, bottom.clamp(max=side) - 1),
        left.minimum(right.clamp(max=side) - 1),
    )
    places = torch.stack([top, bottom, left, right], dim=1).tolist()
    # The integer kernel is fast where colours lie side by side.
    by_pixel = images.contiguous(memory_format=torch.channels_last)
    crops = images.new_empty(len(boxes), 3, size, size)
    for row, (a, b, c, d) in enumerate(places):
        piece = by_pixel[row % len(images), None, :, a:b, c:d]
        crops[row] = functional.interpolate(
            piece, (size, size), mode="bilinear", antialias=True, align_corners=False
        )[0]
    mirrored = flip.nonzero()[:, 0]
    crops[mirrored] = crops[mirrored].flip(3)
    return crops


def resample(images: Tensor, boxes: Tensor, size: int, flip: Tensor) -> Tensor:
    """The same at any place between pixels: float32 images to float32 crops, values keep range."""
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
            groups.append(images.new_zeros(0, 3, size, size))
            continue
        draws = draw(stream, epochs, identifiers, views)
        boxes = crop_boxes(draws, aspect.repeat(len(views)), scale, config.aspect_ratio)
        crops = cut(images, boxes, size, draws["flip"] < config.flip)
        crops = recolour(crops, draws, config, blur_share, solarize_share)
        if config.shuffle != "none":
            block = patch_size if config.shuffle == "patches" else 1
            crops = shuffle(crops, keyed(stream.seed, "shuffle", identifiers, epochs, views), block)
        total += digest(crops, views)
        groups.append(crops)
    return Views(global_crops=groups[0], local_crops=groups[1], digest=total)


def recolour(
    crops: Tensor,
    draws: Draws,
    config: AugmentConfig,
    blur_share: list[float],
    solarize_share: list[float],
) -> Tensor:
    """Jitter, grey, blur and solarise uint8 crops [n, 3, S, S], each with its probability."""

    def chosen(name: str, share: list[float]) -> Tensor:
        views = torch.tensor(share, device=crops.device)
        return draws[name] < views.repeat_interleave(len(crops) // len(share))

    if not (config.jitter or config.grayscale or any(blur_share) or any(solarize_share)):
        return crops
    blurred, solarized = chosen("blur", blur_share), chosen("solarize", solarize_share)
    low, high = config.blur_sigma
    sigma = low + draws["sigma"] * (high - low)
    reach = torch.ceil(BLUR_REACH * sigma).to(torch.int64)
    changed = torch.empty_like(crops)
    # A few crops at a time stay in a CPU's cache from one pass to the next.
    rows = max(1, CACHED // crops[0].numel()) if crops.device.type == "cpu" else len(crops)
    for start in range(0, len(crops), rows):
        part = slice(start, start + rows)
        values = crops[part].to(torch.float32)
        if config.jitter or config.grayscale:
            values = colours(values, {name: drawn[part] for name, drawn in draws.items()}, config)
        if any(blur_share):
            for radius in reach[part][blurred[part]].unique().tolist():
                here = (blurred[part] & (reach[part] == radius)).nonzero()[:, 0]
                values[here] = blur(values[here], sigma[part][here], radius)
        if any(solarize_share):
            here = solarized[part].nonzero()[:, 0]
            values[here] = torch.minimum(values[here], 255 - values[here])
        changed[part] = values.add_(0.5).to(torch.uint8)
    return changed


def colours(crops: Tensor, draws: Draws, config: AugmentConfig) -> Tensor:
    """Brightness, contrast, saturation, hue and grey of float32 crops [n, 3, S, S] in [0, 255].

    In this order, each as torchvision defines it but for hue, a rotation in the chroma plane of
    YIQ. All are affine in the colour of a pixel, so they are one matrix and one offset a crop;
    values are clamped at the end.
    """
    matrix, offset = colour_maps(crops.mean((2, 3)), draws, config)
    # Not a batched product: its rounding could depend on how many crops there are.
    changed = crops[:, :1] * matrix[:, :, 0, None, None]
    for channel in (1, 2):
        changed.add_(crops[:, channel : channel + 1] * matrix[:, :, channel, None, None])
    return changed.add_(offset[:, None, None, None]).clamp_(0, 255)


def colour_maps(means: Tensor, draws: Draws, config: AugmentConfig) -> tuple[Tensor, Tensor]:
    """Matrices [n, 3, 3] and offsets [n], the same for the three colours, of `means` [n, 3]."""
    device = means.device
    identity, luma = torch.eye(3, device=device), torch.tensor(_LUMA, device=device)
    grey = luma.expand(3, 3)

    def factor(name: str, strength: float) -> Tensor:
        return (1 + (2 * draws[name] - 1) * strength)[:, None, None]

    bright, contrast = factor("brightness", config.brightness), factor("contrast", config.contrast)
    vivid = factor("saturation", config.saturation)
    matrix = bright * contrast * (vivid * identity + (1 - vivid) * grey)
    offset = ((1 - contrast) * bright)[:, 0, 0] * (means * luma).sum(1)
    if config.hue:
        matrix = hue_rotations((2 * draws["hue"] - 1) * config.hue) @ matrix
    jittered = draws["jitter"] < config.jitter
    matrix = torch.where(jittered[:, None, None], matrix, identity)
    offset = torch.where(jittered, offset, torch.zeros_like(offset))
    greyed = (draws["grayscale"] < config.grayscale)[:, None, None]
    return torch.where(greyed, (luma @ matrix)[:, None].expand(-1, 3, -1), matrix), offset


def hue_rotations(turns: Tensor) -> Tensor:
    """Matrices [n, 3, 3] that turn colours about grey by `turns` [n] in the chroma plane of YIQ."""
    to_yiq = torch.tensor(_YIQ, device=turns.device)
    cosine, sine = torch.cos(turns * (2 * math.pi)), torch.sin(turns * (2 * math.pi))
    rotation = torch.zeros(len(turns), 3, 3, device=turns.device)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = cosine
    rotation[:, 2, 1], rotation[:, 1, 2] = sine, -sine
    return torch.linalg.inv(to_yiq) @ rotation @ to_yiq


def blur(crops: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur of each crop [n, 3, S, S] with its own deviation [n], in pixels.

    Weights reach `radius` pixels and sum to 1; borders are repeated.
    """
    distance = torch.arange(-radius, radius + 1, device=crops.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True))[:, :, None, None, None]
    for axis in (2, 3):
        crops = _weighted_neighbours(crops, weights, radius, axis)
    return crops


def _weighted_neighbours(crops: Tensor, weights: Tensor, radius: int, axis: int) -> Tensor:
    side = crops.shape[axis]
    beyond = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
    padded = functional.pad(crops, beyond, mode="replicate")
    total = crops * weights[:, radius]
    for step in range(1, radius + 1):
        pair = padded.narrow(axis, radius - step, side) + padded.narrow(axis, radius + step, side)
        total.add_(pair.mul_(weights[:, radius + step]))
    return total


def shuffle(crops: Tensor, source: Keyed, block: int) -> Tensor:
    """Crops [V · B, 3, S, S] with their blocks of `block` × `block` pixels in a keyed order."""
    side = crops.shape[-1] // block
    order = source.uniform(side * side).argsort(dim=1, stable=True)
    rows = crops.view(len(crops), 3, side, block, side, block)
    blocks = rows.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    moved = blocks[torch.arange(len(crops), device=crops.device)[:, None], order]
    rows = moved.unflatten(1, (side, side)).permute(0, 3, 1, 4, 2, 5)
    return rows.reshape(crops.shape).contiguous()


def digest(crops: Tensor, views: range) -> Tensor:
    """A 64-bit hash of all views of each image, int64 [B]: a keyed sum mod 2⁶⁴ of 8-byte words."""
    rows = crops.view(len(crops), -1)
    rows = functional.pad(rows, (0, -rows.shape[1] % 8))
    words = rows.view(torch.int64).view(len(views), -1, rows.shape[1] // 8)
    return (words * _digest_keys(views, words.shape[2], crops.device)).sum((0, 2))


@functools.cache
def _digest_keys(views: range, size: int, device: torch.device) -> Tensor:
    view = torch.tensor(list(views), device=device)[:, None, None]
    high, low, _, _ = Stream(0, "digest").bits(view, torch.arange(size, device=device))
    return (high << 32) | low | 1


def evaluation_crops(images: Tensor, aspect: Tensor, size: int) -> Tensor:
    """The centred square of each image, unaugmented: uint8 [B, 3, size, size]."""
    upright = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    return cut(images, whole_square(aspect), size, upright)


def normalize(crops: Tensor) -> Tensor:
    """uint8 crops as float32, standardised by ImageNet's mean and deviation, as DINO does."""
    scale, shift = _standardising(crops.device)
    return crops.to(torch.float32).mul_(scale).sub_(shift)


@functools.cache
def _standardising(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, deviation = torch.tensor(IMAGENET)[..., None, None]
    return (1 / (255 * deviation)).to(device), (mean / deviation).to(device)
