"""Attention by construction, whatever a network learns: local, uniform, or both.

A token with a window attends to itself and to the patches in it, and to no other token. One that is
uniform attends evenly to all that it may attend to. Both are for the end points that ask how tokens
attend (docs/studies.md).

Shapes: T tokens ([CLS] if there is one, then registers, then N = gh · gw patches row by row).
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from trainers.config import ModelConfig
from trainers.grid import Grid


class Window(NamedTuple):
    """What the tokens of an image may attend to, and how; None: all of them to all."""

    allowed: Tensor | None = None
    """keys that each query may attend to, bool [T, T]"""
    asking: Tensor | None = None
    """of each token 1, or 0 where it attends evenly: a query of 0 has the same score for every key;
    [T, 1]"""

    def asked(self, queries: Tensor) -> Tensor:
        """Queries [..., Q, K] of the first Q tokens, 0 where they ask for nothing."""
        return queries if self.asking is None else queries * self.asking[: queries.shape[-2]]


Windows = tuple[Window, ...]
"""Of each segment in turn (trainers/model/attention.py); empty: all tokens attend to all."""


def windows(config: ModelConfig, grid: Grid, device: torch.device) -> Windows:
    """Those of images of one size, with that grid of patches."""
    cls_window = config.cls_window if config.cls else 0
    cls_uniform = config.cls and config.cls_uniform
    allowed = asking = None
    if config.patch_window or cls_window:
        few = (config.cls, config.registers, config.patch_window, cls_window)
        allowed = allowed_keys(grid, *few, device)
    if config.patch_uniform or cls_uniform:
        others = config.registers + config.cls
        asking = _asking(grid, others, config.patch_uniform, cls_uniform, device)
    return () if allowed is None and asking is None else (Window(allowed, asking),)


@functools.cache
def _asking(
    grid: Grid, others: int, patch_uniform: bool, cls_uniform: bool, device: torch.device
) -> Tensor:
    asking = torch.ones(others + grid[0] * grid[1], 1)
    if patch_uniform:
        asking[others:] = 0
    if cls_uniform:
        asking[0] = 0
    return asking.to(device)


@functools.cache
def allowed_keys(
    grid: Grid,
    has_cls: bool,
    registers: int,
    patch_window: int,
    cls_window: int,
    device: torch.device,
) -> Tensor:
    """Which keys each query may attend to, bool [T, T].

    With `patch_window` w above 0, a patch attends to the patches at most w rows and w columns away.
    With `cls_window` w, [CLS] attends to the patches whose centres are at most w patches from the
    middle of the grid, down and right. Registers attend to all, and so does a token without window.
    """
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in grid)
    places = torch.cartesian_prod(rows, columns).view(-1, 2)
    first = has_cls + registers
    allowed = torch.ones(first + len(places), first + len(places), dtype=torch.bool)
    if patch_window:
        allowed[first:, :first] = False
        apart = (places[:, None] - places).abs().amax(-1)
        allowed[first:, first:] = apart <= patch_window
    if cls_window:
        allowed[0, 1:first] = False
        middle = torch.tensor([(side - 1) / 2 for side in grid])
        allowed[0, first:] = (places - middle).abs().amax(-1) <= cls_window
    return allowed.to(device)
