"""Batched multi-crop from keyed randomness (Caron et al. 2021, appendix A).

Every draw of a crop is keyed by (epoch, image, view, draw), so what an image looks like in a view
depends on nothing else: not on the arm, not on the batch, not on the number of workers, not on the
device. A crop's box is drawn in the image's original geometry. Crops have 8 bits, as in an image
file. All is drawn on the host but for the order in which blocks are shuffled, which is drawn where
crops are made. That device is never waited for.

Shapes: B images, V views of one kind, n = V · B crops, S side in pixels.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainers.config import AugmentConfig
from trainers.data.colours import Changes, recolour
from trainers.data.cut import Draws, Images, crop_boxes, cut, whole_square
from trainers.grid import Grid
from trainers.randomness.forward_draws import Keyed, keyed
from trainers.randomness.streams import Stream, packed
from trainers.system.transfer import sent

Colours = tuple[float, float, float]

IMAGENET: tuple[Colours, Colours] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of pixels in [0, 1], by colour."""

_DRAWS = (
    "area", "ratio", "top", "left", "flip", "jitter", "brightness", "contrast", "saturation",
    "hue", "grayscale", "blur", "sigma", "solarize",
)  # fmt: skip
_SLOTS_A_VIEW = 64
_VIEWS_AN_EPOCH = 2**14


@dataclass(frozen=True, kw_only=True)
class Views:
    """Crops of one batch, uint8, the rows of one view after those of another."""

    global_crops: Tensor
    """[global_crops · B, 3, S, S]"""
    local_crops: Tensor
    """[local_crops · B, 3, S, S], with a side of its own"""
    digest: Tensor
    """int64 [B]: a hash of all crops of an image"""

    def grid(self, patch_size: int) -> Grid:
        """Rows and columns of patches of a global crop."""
        rows, columns = (side // patch_size for side in self.global_crops.shape[-2:])
        return rows, columns

    def on(self, device: torch.device) -> "Views":
        """These on `device`, for whose transfer the host does not wait."""
        if self.digest.device.type == device.type:
            return self
        whole, part, digest = sent([self.global_crops, self.local_crops, self.digest], device)
        return Views(global_crops=whole, local_crops=part, digest=digest)


def draw(stream: Stream, epochs: Tensor, identifiers: Tensor, views: range) -> Draws:
    """Uniform numbers in [0, 1), each [V · B], by the name of what they decide."""
    view = torch.tensor(list(views))[None, :, None]
    slot = torch.arange(len(_DRAWS))[:, None, None]
    minor = packed(epochs, view, slot, _VIEWS_AN_EPOCH, _SLOTS_A_VIEW)
    uniforms = stream.uniform(identifiers, minor).flatten(1)
    return dict(zip(_DRAWS, uniforms.unbind(0), strict=True))


def augment(
    images: Images,
    aspect: Tensor,
    identifiers: Tensor,
    epochs: Tensor,
    config: AugmentConfig,
    stream: Stream,
    patch_size: int,
) -> Views:
    """All crops of a batch, made where its images lie.

    `aspect` float32 [B] (original width over height), and `identifiers` and `epochs`, int64 [B],
    which key the draws, lie on the CPU. `patch_size` is that of the patches that shuffling moves.
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
    device = images[0].device
    total = torch.zeros(len(images), dtype=torch.int64, device=device)
    for views, blur_share, solarize_share, scale, size in zip(
        views_of, blurs, solarizes, scales, sizes, strict=True
    ):
        if not views:
            groups.append(torch.empty(0, 3, size, size, dtype=torch.uint8, device=device))
            continue
        draws = draw(stream, epochs, identifiers, views)
        boxes = crop_boxes(draws, aspect.repeat(len(views)), scale, config.aspect_ratio)
        crops = cut(images, boxes, size, draws["flip"] < config.flip)
        crops = recolour(crops, Changes.drawn(draws, config, blur_share, solarize_share))
        if config.shuffle != "none":
            block = patch_size if config.shuffle == "patches" else 1
            keys, when = sent([identifiers, epochs], device)
            crops = shuffle(crops, keyed(stream.seed, "shuffle", keys, when, views), block)
        total += digest(crops, views)
        groups.append(crops)
    return Views(global_crops=groups[0], local_crops=groups[1], digest=total)


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
    view = torch.tensor(list(views))[:, None, None]
    high, low, _, _ = Stream(0, "digest").bits(view, torch.arange(size))
    return sent([(high << 32) | low | 1], device)[0]


def evaluation_crops(
    images: Images, aspect: Tensor, size: int, device: torch.device | None = None
) -> Tensor:
    """The centred square of each image, unaugmented: uint8 [B, 3, size, size].

    On `device`, or where the images lie. `aspect` float32 [B] lies on the CPU.
    """
    upright = torch.zeros(len(images), dtype=torch.bool)
    crops = cut(images, whole_square(aspect), size, upright)
    return crops if device is None else crops.to(device)


def normalize(crops: Tensor) -> Tensor:
    """uint8 crops as float32, standardised by ImageNet's mean and deviation, as DINO does."""
    scale, shift = _standard(crops.device)
    return crops.to(torch.float32).mul_(scale).sub_(shift)


@functools.cache
def _standard(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, deviation = torch.tensor(IMAGENET)[..., None, None]
    scale, shift = sent([1 / (255 * deviation), mean / deviation], device)
    return scale, shift
