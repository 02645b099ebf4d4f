"""Which tokens a token may attend to: all, or those near its place alone.

A token with a window attends to itself and to the patches in it, and to no other token: attention
that is local by construction, for the end points that ask whether it is (docs/studies.md).

Shapes: T tokens ([CLS] if there is one, then registers, then N = gh · gw patches row by row).
"""

import functools

import torch
from torch import Tensor

from trainers.config import ModelConfig
from trainers.grid import Grid

Windows = tuple[Tensor, ...]
"""Of each segment in turn (trainers/model/attention.py) the keys that each query may attend to,
bool [T, T]; empty: all keys."""


def windows(config: ModelConfig, grid: Grid, device: torch.device) -> Windows:
    """Those of images of one size, with that grid of patches."""
    cls_window = config.cls_window if config.cls else 0
    if not (config.patch_window or cls_window):
        return ()
    few = (config.cls, config.registers, config.patch_window, cls_window)
    return (allowed_keys(grid, *few, device),)


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
