"""The random parts of a forward pass: drop path, masks, where a wandering [CLS] stands.

Each is keyed by (image, epoch, view), like the crops. The model takes the draws as values and has
no randomness of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from trainers.config import LossConfig, ModelConfig
from trainers.grid import Grid
from trainers.randomness.streams import Stream, packed
from trainers.system.transfer import sent

TRIES = 64
"""Rectangles of a mask of blocks that are tried; a row of iBOT's is done after about 50 at most."""

FAILURES = 10
"""Tries without success after which a mask of blocks is done."""

SLIMMEST = 0.3
"""Ratio of the sides of the most unequal rectangle in a mask of blocks."""

_SLOTS_A_VIEW = 2**20
_VIEWS_AN_EPOCH = 2**8


@dataclass(frozen=True, kw_only=True)
class ForwardDraws:
    """What chance decided for each of B rows of images; None where nothing is left to chance."""

    keep: Tensor | None = None
    """[B, depth, 2]: factor of each block's attention and MLP, 0 or one over the share kept"""
    mask: Tensor | None = None
    """bool [B, N]: patches hidden from the student"""
    masked: Tensor | None = None
    """int64 [M]: places of those among all B · N, known where nobody has to wait for their count"""
    cls_patch: Tensor | None = None
    """int64 [B]: the patch of the full grid whose position [CLS] carries"""

    def rows(self, chosen: Tensor) -> "ForwardDraws":
        """The draws of some rows."""
        keep, mask, patch = (
            None if draws is None else draws[chosen]
            for draws in (self.keep, self.mask, self.cls_patch)
        )
        return ForwardDraws(keep=keep, mask=mask, cls_patch=patch)


def draws_on(device: torch.device, draws: Sequence[ForwardDraws]) -> list[ForwardDraws]:
    """Draws made on the host, and the places of what they mask, in one transfer to `device`."""
    placed = [
        one if one.mask is None else replace(one, masked=one.mask.flatten().nonzero()[:, 0])
        for one in draws
    ]
    values = [{field.name: getattr(one, field.name) for field in fields(one)} for one in placed]
    given = [(one, name) for one in values for name in one if one[name] is not None]
    there = sent([one[name] for one, name in given], device)
    for (one, name), arrived in zip(given, there, strict=True):
        one[name] = arrived
    return [ForwardDraws(**one) for one in values]


def joined(parts: Sequence[ForwardDraws]) -> ForwardDraws:
    """The draws of the rows of all parts, one part after the other."""

    def of(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else torch.cat(values)

    return ForwardDraws(keep=of("keep"), mask=of("mask"), cls_patch=of("cls_patch"))


def keyed(seed: int, purpose: str, identifiers: Tensor, epochs: Tensor, views: range) -> "Keyed":
    """The source of the draws of one purpose for the rows of `views`, one view after the other.

    `identifiers` and `epochs`, int64 [b], name the images; there are V · b rows.
    """
    view = torch.arange(views.start, views.stop, views.step, device=identifiers.device)[:, None]
    minor = packed(epochs, view, 0, _VIEWS_AN_EPOCH, _SLOTS_A_VIEW)
    major = identifiers.expand(len(views), -1)
    return Keyed(Stream(seed, purpose), major.reshape(-1), minor.reshape(-1))


@dataclass(frozen=True)
class Keyed:
    """Counters of the rows in one stream."""

    stream: Stream
    major: Tensor
    minor: Tensor

    def uniform(self, slots: int) -> Tensor:
        """Uniform numbers in [0, 1), [B, slots]."""
        assert slots <= _SLOTS_A_VIEW
        places = torch.arange(slots, device=self.minor.device)
        return self.stream.uniform(self.major[:, None], self.minor[:, None] + places)


def drop_path(source: Keyed, model: ModelConfig) -> Tensor | None:
    """Factors [B, depth, 2]: 0 with a probability that rises linearly with depth, else 1 / (1 - p).

    Huang et al. 2016, eq. 4, scaled as in DINO so that the mean stays the same.
    """
    if not model.drop_path:
        return None
    chance = torch.linspace(0, model.drop_path, model.depth, device=source.minor.device)
    uniform = source.uniform(2 * model.depth).unflatten(1, (model.depth, 2))
    return (uniform >= chance[:, None]) / (1 - chance[:, None])


def masks(source: Keyed, loss: LossConfig, grid: Grid) -> Tensor:
    """Masked patches, bool [B, N] (Zhou et al. 2022): none in some rows, a random share in others.

    A row is masked with `mask_probability`; then the share is uniform in `mask_share`, rounded down
    to patches as in bytedance/ibot, loader.py. The patches are a uniform choice, or blocks.
    """
    patches = grid[0] * grid[1]
    decides, share = source.uniform(2).unbind(1)
    low, high = loss.mask_share
    most = (low + share * (high - low)) * patches * (decides < loss.mask_probability)
    further = Keyed(source.stream, source.major, source.minor + 2)
    if loss.mask_kind == "block":
        return _blocks(further.uniform(4 * TRIES).unflatten(1, (TRIES, 4)), most, grid)
    order = further.uniform(patches)
    ranks = order.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return ranks < most.floor()[:, None]


def _blocks(uniform: Tensor, most: Tensor, grid: Grid) -> Tensor:
    """Rectangles of up to `most` [B] patches in all, bool [B, N] (Bao et al. 2022, BEiT, alg. 1).

    As in bytedance/ibot, loader.py: a rectangle has an area between a ninth of the square in the
    grid and what is left, and a log-uniform ratio of its sides. It is taken if it is smaller than
    the grid and hides something new and no more than what is left. After FAILURES tries without
    success a row is done, so that some have a few patches less. `uniform` [B, tries, 4] in [0, 1).
    """
    rows, columns = grid
    down = torch.arange(rows, device=uniform.device)[:, None]
    right = torch.arange(columns, device=uniform.device)
    smallest = (min(grid) // 3) ** 2
    hidden = torch.zeros(len(uniform), rows, columns, dtype=torch.bool, device=uniform.device)
    # In float64, so that no device rounds a side otherwise.
    left, failures = most.double(), torch.zeros_like(most)
    for tried in uniform.double().unbind(1):
        # Elsewhere the host would wait for the answer.
        if uniform.device.type == "cpu" and not ((left >= 1) & (failures < FAILURES)).any():
            break
        of_area, of_ratio, of_top, of_start = tried.unbind(1)
        area = smallest + of_area * (left - smallest)
        ratio = torch.exp((1 - 2 * of_ratio) * math.log(SLIMMEST))
        height, width = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        top = (of_top * (rows - height + 1)).floor()[:, None, None]
        start = (of_start * (columns - width + 1)).floor()[:, None, None]
        inside = (down >= top) & (down < top + height[:, None, None])
        inside = inside & (right >= start) & (right < start + width[:, None, None])
        new = inside & ~hidden
        gained = new.sum((1, 2))
        fits = (height < rows) & (width < columns) & (gained > 0) & (gained <= left)
        fits = fits & (failures < FAILURES)
        hidden = hidden | (new & fits[:, None, None])
        left = left - gained * fits
        failures = (failures + 1) * ~fits
    return hidden.flatten(1)


def wandering_cls(source: Keyed, model: ModelConfig, grid: Grid) -> Tensor | None:
    """A uniform patch of the full grid for each row, int64 [B], where [CLS] takes a random one."""
    if not (model.cls and model.cls_position == "random"):
        return None
    return (source.uniform(1)[:, 0] * (grid[0] * grid[1])).to(torch.int64)


def evaluation_draws(
    seed: int, identifiers: Tensor, model: ModelConfig, grid: Grid
) -> ForwardDraws:
    """What chance decides where images are measured: where [CLS] stands, the same at every step.

    `identifiers`, int64 [B], name the images.
    """
    never = torch.zeros_like(identifiers)
    source = keyed(seed, "cls position/evaluation", identifiers, never, range(1))
    return ForwardDraws(cls_patch=wandering_cls(source, model, grid))
