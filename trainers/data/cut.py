"""Boxes of images resampled to crops: the same bits on every device, whatever images are beside.

Images squeezed to small squares are cut between pixels, on a CPU. All others are cut at whole
pixels by the integer kernel of PyTorch, which does what Pillow does: weights are rounded to whole
numbers, rows are resampled, then columns, each rounded to 8 bits. Other devices have no such
kernel: there, the same integers are multiplied and added as floats that hold them exactly.

Shapes: B images, V views of one kind, n = V · B crops with the rows of a view together, S side.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainers.config.data import SMALL_SQUARE
from trainers.system.transfer import sent

Draws = dict[str, Tensor]

Images = Tensor | list[Tensor]
"""Squeezed to squares, uint8 [B, 3, S, S], or as decoded, B times uint8 [3, H, W]."""

_Place = tuple[int, int, int, int]

_WEIGHT_BITS = 15
_MOST_SHIFT = 22
_EXACT_IN_FLOAT32 = 512
"""Taps up to which 255 times the lower half of each weight, summed, stays below 2²⁴."""
_TOGETHER = 2**25
"""Values of boxes that are cut together, at most, if it is more than one; 13 bytes each."""


def crop_boxes(
    draws: Draws, aspect: Tensor, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Boxes (top, left, height, width) in shares of the image, float32 [n, 4], inside [0, 1].

    The box covers a uniform share `scale` of the area, at a log-uniform width over height `ratio`
    measured in the original image of the given `aspect` [n] (width over height). A side that
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


def cut(images: Images, boxes: Tensor, size: int, flip: Tensor) -> Tensor:
    """Cut boxes [n, 4] out of images and resize: uint8 [n, 3, size, size] where the images lie.

    Bicubic from images as decoded, bilinear from squares, both antialiased. Boxes are rounded to
    whole pixels but for small squares, which have to lie on the CPU. `flip` [n] mirrors left and
    right; both lie on the CPU.
    """
    if isinstance(images, Tensor) and images.shape[-1] <= SMALL_SQUARE:
        crops = resample(images.to(torch.float32), boxes, size, flip)
        return crops.add_(0.5).to(torch.uint8)
    kind = "bilinear" if isinstance(images, Tensor) else "bicubic"
    places = _whole_pixels(images, boxes)
    if images[0].device.type == "cpu":
        return _cut_by_kernel(images, places, size, flip, kind)
    return cut_by_products(images, places, size, flip, kind)


def _whole_pixels(images: Images, boxes: Tensor) -> list[_Place]:
    """Top, bottom, left and right of each box in pixels, at least one pixel inside the image."""
    sides = torch.tensor([image.shape[-2:] for image in images])
    sides = sides.repeat(len(boxes) // len(images), 1)
    starts = (boxes[:, :2] * sides).round().to(torch.int64)
    ends = ((boxes[:, :2] + boxes[:, 2:]) * sides).round().to(torch.int64)
    # A row at the far border may have been pushed over it.
    ends = torch.maximum(ends, starts + 1).minimum(sides)
    starts = torch.minimum(starts, ends - 1)
    (top, left), (bottom, right) = starts.unbind(1), ends.unbind(1)
    return list(zip(*(side.tolist() for side in (top, bottom, left, right)), strict=True))


def _cut_by_kernel(
    images: Images, places: list[_Place], size: int, flip: Tensor, kind: str
) -> Tensor:
    if isinstance(images, Tensor):
        # The integer kernel is fast where colours lie side by side.
        images = images.contiguous(memory_format=torch.channels_last)
    crops = torch.empty(len(places), 3, size, size, dtype=torch.uint8)
    for row, (top, bottom, left, right) in enumerate(places):
        piece = images[row % len(images)][None, :, top:bottom, left:right]
        crops[row] = functional.interpolate(
            piece, (size, size), mode=kind, antialias=True, align_corners=False
        )[0]
    mirrored = flip.nonzero()[:, 0]
    crops[mirrored] = crops[mirrored].flip(3)
    return crops


def cut_by_products(
    images: Images, places: list[_Place], size: int, flip: Tensor, kind: str
) -> Tensor:
    """What the integer kernel gives, by products of matrices on the device of the images.

    Boxes of a like extent are cut together: one by one, the host would not keep up.
    """
    if isinstance(images, Tensor):
        pixels = images.flatten()
    else:
        pixels = torch.cat([image.flatten() for image in images])
    plan = _Plan.of(images, places, size, flip, kind)
    found = []
    for some, height, width in plan.groups:
        across = plan.weights(0, some, width)
        down = plan.weights(1, some, height)
        # Rows stand before colours, so that both products find their factors as they lie.
        window = pixels[plan.window(some, height, width)].flatten(1, 2).transpose(1, 2)
        rows = across.times(window).transpose(1, 2).reshape(-1, height, 3 * size)
        found.append(down.times(rows).view(-1, size, 3, size).transpose(1, 2))
    return torch.cat(found).index_select(0, plan.back)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Boxes in order of their area, the largest first, [n] each, on the device of the images."""

    groups: list[tuple[slice, int, int]]
    """boxes that are cut together, and their largest height and width; on the host"""
    corner: Tensor
    """place of the first pixel among those of all images"""
    stride: Tensor
    """pixels from a row to the next"""
    plane: Tensor
    """pixels from a colour to the next"""
    extents: Tensor
    """width and height, [2, n]"""
    first: Tensor
    """first source pixel of each target, inside the box; across and down, [2, n, size]"""
    taps: Tensor
    """whole weights of that one and those after it, [2, n, size, K]"""
    shift: Tensor
    """bits by which these are scaled up, [2, n]"""
    back: Tensor
    """place of each box in this order"""

    @classmethod
    def of(
        cls, images: Images, places: list[_Place], size: int, flip: Tensor, kind: str
    ) -> "_Plan":
        """Taps across are mirrored where `flip`; each extent that occurs is planned but once."""
        top, bottom, left, right = torch.tensor(places).unbind(1)
        order = ((bottom - top) * (right - left)).argsort(descending=True, stable=True)
        top, bottom, left, right = (one[order] for one in (top, bottom, left, right))
        extents = torch.stack([right - left, bottom - top])
        sides = torch.tensor([image.shape[-2:] for image in images])
        plane, stride = sides.prod(1), sides[:, 1]
        begins = 3 * (plane.cumsum(0) - plane)
        image = order % len(images)
        corner = begins[image] + top * stride[image] + left
        planned, which = extents.unique(return_inverse=True)
        first, weights, shift = taps(planned, size, kind)
        mirrored = torch.stack([flip[order], torch.zeros_like(flip)])
        corner, stride, plane, there, back, first, weights, shift, which, mirrored = sent(
            [
                *(corner, stride[image], plane[image], extents, order.argsort()),
                *(first, weights.to(torch.int16), shift, which, mirrored),
            ],
            images[0].device,
        )
        first, weights, shift = (
            one.index_select(0, which.flatten()).unflatten(0, which.shape)
            for one in (first, weights, shift)
        )
        return cls(
            groups=_groups(*extents.tolist()),
            corner=corner,
            stride=stride,
            plane=plane,
            extents=there,
            first=torch.where(mirrored[..., None], first.flip(2), first),
            taps=torch.where(mirrored[..., None, None], weights.flip(2), weights),
            shift=shift,
            back=back,
        )

    def weights(self, axis: int, some: slice, source: int) -> "_Weights":
        """Of resampling these boxes across (0) or down (1), from so many pixels."""
        first, taps, shift = (one[axis, some] for one in (self.first, self.taps, self.shift))
        return _Weights.dense(first, taps, shift, source)

    def window(self, some: slice, height: int, width: int) -> Tensor:
        """Places of the pixels of these boxes, [n, height, 3, width].

        Beyond a smaller box its last pixel is repeated, which has no weight there.
        """
        device = self.corner.device
        columns, rows = (
            torch.arange(most, device=device).minimum(extent[some, None] - 1)
            for most, extent in zip((width, height), self.extents, strict=True)
        )
        rows = self.corner[some, None] + rows * self.stride[some, None]
        colours = torch.arange(3, device=device) * self.plane[some, None]
        return (rows[:, :, None] + colours[:, None])[..., None] + columns[:, None, None]


def _groups(widths: list[int], heights: list[int]) -> list[tuple[slice, int, int]]:
    """Boxes one after the other that are cut together, with their largest height and width."""
    found, start, high, wide = [], 0, 0, 0
    for place, (width, height) in enumerate(zip(widths, heights, strict=True)):
        higher, wider = max(high, height), max(wide, width)
        if place > start and (place + 1 - start) * 3 * higher * wider > _TOGETHER:
            found.append((slice(start, place), high, wide))
            start, higher, wider = place, height, width
        high, wide = higher, wider
    return [*found, (slice(start, len(widths)), high, wide)]


class _Weights:
    """Whole weights of n resamplings [n, size, source] in two halves, and their scale in bits."""

    def __init__(self, upper: Tensor, lower: Tensor, shift: Tensor) -> None:
        self.upper, self.lower, self.shift = upper, lower, shift[:, None, None]

    @classmethod
    def dense(cls, first: Tensor, weights: Tensor, shift: Tensor, source: int) -> "_Weights":
        """From the taps of each target pixel; those beyond the source have no weight."""
        count = weights.shape[2]
        # Taken, not put in place: putting sorts the places first where algorithms have to be
        # deterministic, and the host may wait.
        tap = torch.arange(source, device=first.device) - first[..., None]
        whole = weights.to(torch.int32).gather(2, tap.clamp(0, count - 1))
        whole *= (tap >= 0) & (tap < count)
        lower = ((whole + 128) & 255) - 128
        number = torch.float32 if count <= _EXACT_IN_FLOAT32 else torch.float64
        return cls(((whole - lower) >> 8).to(number), lower.to(number), shift)

    def times(self, pixels: Tensor) -> Tensor:
        """Resampled pixels [n, source, m], rounded to 8 bits: uint8 [n, size, m]."""
        values = pixels.to(self.upper.dtype)
        # Both products are whole numbers below 2²⁴, also where factors are cut to TF32.
        total = (self.upper @ values).to(torch.int32) * 256 + (self.lower @ values).to(torch.int32)
        half = (torch.ones_like(self.shift) << self.shift) >> 1
        return ((total + half) >> self.shift).clamp_(0, 255).to(torch.uint8)


def taps(extents: Tensor, size: int, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """How `extents` int64 [m] pixels become `size` pixels, as PyTorch's integer kernel does it.

    Gives the first source pixel of each target int64 [m, size], whole weights of that one and
    those after it int64 [m, size, K], and the bits int64 [m] by which these are scaled up.
    """
    reach = {"bilinear": 1.0, "bicubic": 2.0}[kind]
    scale = extents.to(torch.float64) / size
    stretch = scale.clamp(min=1)
    centres = scale[:, None] * (torch.arange(size) + 0.5)
    support = (reach * stretch)[:, None]
    first = (centres - support + 0.5).to(torch.int64).clamp_(min=0)
    end = torch.minimum((centres + support + 0.5).to(torch.int64), extents[:, None])
    pixels = first[..., None] + torch.arange(int((end - first).max()))
    distance = (pixels - centres[..., None] + 0.5).mul_((1 / stretch)[:, None, None]).abs_()
    weights = _triangle(distance) if kind == "bilinear" else _cubic(distance)
    weights *= pixels < end[..., None]
    weights /= weights.sum(-1, keepdim=True)
    powers = 2.0 ** torch.arange(1, _MOST_SHIFT + 1)
    largest = weights.amax((1, 2))[:, None]
    shift = ((largest * powers + 0.5).floor() < 2**_WEIGHT_BITS).sum(1)
    weights = weights * (2.0**shift)[:, None, None]
    return first, (weights + weights.sign() * 0.5).to(torch.int64), shift


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance).clamp_(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """The kernel of Keys (1981) with a = -0.5."""
    near = ((1.5 * distance - 2.5) * distance) * distance + 1
    far = ((distance - 5) * distance + 8) * distance - 4
    return torch.where(distance < 1, near, torch.where(distance < 2, -0.5 * far, 0.0))


def resample(images: Tensor, boxes: Tensor, size: int, flip: Tensor) -> Tensor:
    """Squares float32 [B, 3, S, S] cut bilinearly at any place: float32 [n, 3, size, size]."""
    side = images.shape[-1]
    top, left, height, width = boxes.unbind(1)
    rows = _weights(top, height, side, size, torch.zeros_like(flip))
    columns = _weights(left, width, side, size, flip)
    by_view = (-1, len(images), 1, size, side)
    # Of copies: a single crop would else take another way through the library, and round otherwise.
    down = rows.view(by_view).expand(-1, -1, 3, -1, -1).contiguous()
    across = columns.view(by_view).transpose(3, 4).expand(-1, -1, 3, -1, -1).contiguous()
    return (down @ images @ across).flatten(0, 1)


def _weights(start: Tensor, extent: Tensor, source: int, target: int, flip: Tensor) -> Tensor:
    """Resampling weights along one axis, [n, target, source]; rows sum to 1."""
    step = extent * (source / target)
    places = torch.arange(target, dtype=torch.float32) + 0.5
    places = torch.where(flip[:, None], target - places, places)
    centres = start[:, None] * source + places * step[:, None]
    pixels = torch.arange(source, dtype=torch.float32) + 0.5
    support = step.clamp(min=1.0)[:, None, None]
    weights = (1 - (pixels - centres[..., None]).abs() / support).clamp(min=0)
    return weights / weights.sum(-1, keepdim=True)
