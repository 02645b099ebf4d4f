"""Colours of crops: jitter, grey, blur and solarising, drawn on the host, done where crops lie.

Jitter and grey are one affine map of the colours of a crop, applied and clamped once. No sum
depends on how many crops there are or where they lie: means are sums of whole numbers, and all
else is done pixel by pixel in a fixed order.

Shapes: n crops, V views of one kind, S side in pixels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainers.config import AugmentConfig
from trainers.data.cut import Draws
from trainers.system.transfer import sent

BLUR_REACH = 3
"""Deviations after which a blur's weights end."""

CACHED = 2**20
"""Values that are recoloured at once on a CPU."""

_LUMA = (0.299, 0.587, 0.114)
_YIQ = (_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is done to the colours of n crops, as drawn on the host; None where nothing is."""

    colours: tuple[Tensor, Tensor] | None
    """matrices [n, 3, 3], and shares [n] of a crop's mean luma that are added"""
    blur: tuple[Tensor, Tensor] | None
    """radii int64 [n], 0 for none, and weights [n, R + 1] from the middle outwards"""
    solarized: Tensor | None
    """bool [n]"""

    @classmethod
    def drawn(
        cls, draws: Draws, config: AugmentConfig, blur: list[float], solarize: list[float]
    ) -> "Changes":
        """From draws [n]; probabilities of blur and solarising, one a view."""

        def chosen(name: str, share: list[float]) -> Tensor:
            views = torch.tensor(share)
            return draws[name] < views.repeat_interleave(len(draws[name]) // len(share))

        low, high = config.blur_sigma
        return cls(
            colours=colour_maps(draws, config) if config.jitter or config.grayscale else None,
            blur=blur_weights(low + draws["sigma"] * (high - low), chosen("blur", blur))
            if any(blur)
            else None,
            solarized=chosen("solarize", solarize) if any(solarize) else None,
        )

    def none(self) -> bool:
        """Whether nothing is done to any crop."""
        return self.colours is None and self.blur is None and self.solarized is None

    def of(self, part: slice) -> "Changes":
        """What is done to some crops."""
        return Changes(
            colours=self.colours and (self.colours[0][part], self.colours[1][part]),
            blur=self.blur and (self.blur[0][part], self.blur[1][part]),
            solarized=None if self.solarized is None else self.solarized[part],
        )


def recolour(crops: Tensor, changes: Changes) -> Tensor:
    """Jitter, grey, blur and solarise uint8 crops [n, 3, S, S]."""
    if changes.none():
        return crops
    changed = torch.empty_like(crops)
    on_cpu = crops.device.type == "cpu"
    # A few crops at a time stay in a CPU's cache from one pass to the next.
    rows = max(1, CACHED // crops[0].numel()) if on_cpu else len(crops)
    for start in range(0, len(crops), rows):
        part = slice(start, start + rows)
        values = _recoloured(crops[part].to(torch.float32), changes.of(part))
        changed[part] = values.add_(0.5).to(torch.uint8)
    return changed


def _recoloured(values: Tensor, changes: Changes) -> Tensor:
    device = values.device
    groups: list[tuple[Tensor, Tensor, Tensor]] = []
    if changes.blur is not None:
        radii, weights = changes.blur
        # Weights beyond a crop's radius are 0: one launch for all radii gives the same.
        by_radius = radii.unique().tolist() if device.type == "cpu" else [int(radii.max())]
        for radius in by_radius:
            here = radii == radius if device.type == "cpu" else radii > 0
            if radius:
                groups.append((*_rows(here), weights[here, : radius + 1]))
    maps = () if changes.colours is None else changes.colours
    inverted = () if changes.solarized is None else _rows(changes.solarized)
    there = iter(sent([*maps, *inverted, *(one for group in groups for one in group)], device))
    if maps:
        values = colours(values, next(there), next(there))
    solarized = (next(there), next(there)) if inverted else None
    for _ in groups:
        rows, order, weights = next(there), next(there), next(there)
        values = _replaced(values, rows, order, blur(values[rows], weights))
    if solarized is not None:
        rows, order = solarized
        values = _replaced(values, rows, order, torch.minimum(values[rows], 255 - values[rows]))
    return values


def _rows(here: Tensor) -> tuple[Tensor, Tensor]:
    """Where `here` [n] is true [m], and the order [n] that puts m rows after all n there."""
    order = torch.where(here, len(here) - 1 + here.cumsum(0), torch.arange(len(here)))
    return here.nonzero()[:, 0], order


def _replaced(values: Tensor, rows: Tensor, order: Tensor, changed: Tensor) -> Tensor:
    """The values with these rows as changed, on a CPU in place."""
    if values.device.type == "cpu":
        values[rows] = changed
        return values
    # Putting sorts the rows first where algorithms have to be deterministic, and the host may wait.
    return torch.cat([values, changed]).index_select(0, order)


def colours(crops: Tensor, matrix: Tensor, spread: Tensor) -> Tensor:
    """Brightness, contrast, saturation, hue and grey of float32 crops [n, 3, S, S] in [0, 255].

    `matrix` [n, 3, 3] and `spread` [n] are those of `colour_maps`; values are clamped at the end.
    """
    offset = spread * _mean_luma(crops)
    # Not a batched product: its rounding could depend on how many crops there are.
    changed = crops[:, :1] * matrix[:, :, 0, None, None]
    for channel in (1, 2):
        changed.add_(crops[:, channel : channel + 1] * matrix[:, :, channel, None, None])
    return changed.add_(offset[:, None, None, None]).clamp_(0, 255)


def _mean_luma(crops: Tensor) -> Tensor:
    """Of crops [n, 3, S, S] of whole numbers, [n]; their sums are exact."""
    sums = crops.sum(3).to(torch.int64).sum(2)
    # Not by a number, which some devices would multiply by its rounded inverse.
    means = sums.to(torch.float32) / torch.full_like(sums, crops[0, 0].numel(), dtype=crops.dtype)
    red, green, blue = means.unbind(1)
    return red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]


def colour_maps(draws: Draws, config: AugmentConfig) -> tuple[Tensor, Tensor]:
    """Matrices [n, 3, 3], and shares [n] of a crop's mean luma that are added to all colours.

    In the order of brightness, contrast, saturation and hue, each as torchvision defines it but
    for hue, a rotation in the chroma plane of YIQ. All are affine in the colour of a pixel.
    """
    identity, luma = torch.eye(3), torch.tensor(_LUMA)
    grey = luma.expand(3, 3)

    def factor(name: str, strength: float) -> Tensor:
        return (1 + (2 * draws[name] - 1) * strength)[:, None, None]

    bright, contrast = factor("brightness", config.brightness), factor("contrast", config.contrast)
    vivid = factor("saturation", config.saturation)
    matrix = bright * contrast * (vivid * identity + (1 - vivid) * grey)
    spread = ((1 - contrast) * bright)[:, 0, 0]
    if config.hue:
        matrix = _product(hue_rotations((2 * draws["hue"] - 1) * config.hue), matrix)
    jittered = draws["jitter"] < config.jitter
    matrix = torch.where(jittered[:, None, None], matrix, identity)
    spread = torch.where(jittered, spread, torch.zeros_like(spread))
    greyed = (draws["grayscale"] < config.grayscale)[:, None, None]
    return torch.where(greyed, _product(grey.expand_as(matrix), matrix), matrix), spread


def hue_rotations(turns: Tensor) -> Tensor:
    """Matrices [n, 3, 3] that turn colours about grey by `turns` [n] in the chroma plane of YIQ."""
    to_yiq = torch.tensor(_YIQ)
    cosine, sine = torch.cos(turns * (2 * math.pi)), torch.sin(turns * (2 * math.pi))
    rotation = torch.zeros(len(turns), 3, 3)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = cosine
    rotation[:, 2, 1], rotation[:, 1, 2] = sine, -sine
    back = torch.linalg.inv(to_yiq).expand_as(rotation)
    return _product(_product(back, rotation), to_yiq.expand_as(rotation))


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Of matrices [n, 3, 3], in an order that a library cannot change with n."""
    first, second, third = (left[:, :, k, None] * right[:, k, None, :] for k in range(3))
    return first + second + third


def blur_weights(sigma: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Radii int64 [n] and Gaussian weights [n, R + 1] of deviations `sigma` [n], in pixels.

    Weights of the middle and of pixels ever further from it, up to the radius; with those of the
    other side they sum to 1. Crops that are not `chosen` have radius 0.
    """
    radii = torch.ceil(BLUR_REACH * sigma).to(torch.int64) * chosen
    weights = torch.zeros(len(sigma), int(radii.max()) + 1)
    for radius in radii.unique().tolist():
        here = radii == radius
        distance = torch.arange(-radius, radius + 1, dtype=torch.float32)
        whole = torch.exp(-0.5 * (distance / sigma[here, None]) ** 2)
        whole = whole / whole.sum(1, keepdim=True)
        weights[here, : radius + 1] = whole[:, radius:]
    return radii, weights


def blur(crops: Tensor, weights: Tensor) -> Tensor:
    """Crops [n, 3, S, S] blurred, each with its weights [n, R + 1]; borders are repeated."""
    weights = weights[:, :, None, None, None]
    for axis in (2, 3):
        crops = _weighted_neighbours(crops, weights, axis)
    return crops


def _weighted_neighbours(crops: Tensor, weights: Tensor, axis: int) -> Tensor:
    side, radius = crops.shape[axis], weights.shape[1] - 1
    beyond = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
    padded = functional.pad(crops, beyond, mode="replicate")
    total = crops * weights[:, 0]
    for step in range(1, radius + 1):
        pair = padded.narrow(axis, radius - step, side) + padded.narrow(axis, radius + step, side)
        total.add_(pair.mul_(weights[:, step]))
    return total
