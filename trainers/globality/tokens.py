"""Which tokens of a sequence are measured, and as what."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.grid import Grid

ALL_UP_TO = 196
"""Patches up to which each of them is a measured query."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The layout of a sequence of P + N tokens, and the patch queries that are measured."""

    grid: Grid
    has_cls: bool
    registers: int
    patch_queries: Tensor
    """int64 [Q], rising; see `stratified`"""
    fixed_patch: int | None
    """a patch that is measured by itself, or none"""

    @property
    def first(self) -> int:
        """P, the tokens before the patches."""
        return self.has_cls + self.registers

    @property
    def patches(self) -> int:
        """N"""
        return math.prod(self.grid)

    @property
    def count(self) -> int:
        """T = P + N"""
        return self.first + self.patches

    def rows(self) -> list[tuple[str, Tensor, Tensor | None]]:
        """Of each kind of query its name, tokens [Q], and their patches [Q] if they are patches."""
        device = self.patch_queries.device
        kinds: list[tuple[str, Tensor, Tensor | None]] = []
        if self.has_cls:
            kinds.append(("cls", torch.zeros(1, dtype=torch.int64, device=device), None))
        if self.registers:
            registers = torch.arange(int(self.has_cls), self.first, device=device)
            kinds.append(("register", registers, None))
        if self.fixed_patch is not None:
            place = torch.tensor([self.fixed_patch], device=device)
            kinds.append(("fixed_patch", self.first + place, place))
        kinds.append(("patch", self.first + self.patch_queries, self.patch_queries))
        return kinds


def stratified(grid: Grid, most: int, device: torch.device) -> Tensor:
    """Patches of `grid` that are measured as queries, int64, rising.

    All of up to ALL_UP_TO patches. Of more, `most` that are `spread_over_rings`.
    """
    patches = math.prod(grid)
    return spread_over_rings(grid, most if patches > ALL_UP_TO else patches, device)


def spread_over_rings(grid: Grid, most: int, device: torch.device) -> Tensor:
    """Up to `most` patches of `grid`, int64, rising: always the same ones.

    Spread evenly over the rings of equal distance to the border and around each ring.
    """
    patches = math.prod(grid)
    if patches <= most:
        return torch.arange(patches, device=device)
    rows, columns = grid

    def order(patch: int) -> tuple[int, float]:
        row, column = divmod(patch, columns)
        ring = min(row, column, rows - 1 - row, columns - 1 - column)
        return ring, math.atan2(row - (rows - 1) / 2, column - (columns - 1) / 2)

    ranked = sorted(range(patches), key=order)
    chosen = sorted(ranked[(2 * i + 1) * patches // (2 * most)] for i in range(most))
    return torch.tensor(chosen, device=device)
