"""A frozen ViT that can be measured, and what is to be known of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from trainers.config import DataConfig
from trainers.data.augment import Colours
from trainers.errors import InputError
from trainers.grid import Grid
from trainers.model.positions import patch_at
from trainers.randomness.forward_draws import ForwardDraws

MOST_PATCHES = 256
"""Patches a side of the largest grid that is measured: more than any machine's memory takes."""

Draws = Callable[[Tensor, Grid], ForwardDraws]
"""Of images by their identifiers and of a grid, what a forward pass leaves to chance."""


@dataclass(frozen=True, kw_only=True)
class Measurable:
    """A frozen ViT on the CPU, and what is to be known of it."""

    network: nn.Module
    """with the forward contract of `Observable`, and its blocks as `blocks`"""
    name: str
    weights: str
    """where its parameters come from, in words"""
    is_random: bool
    """whether its parameters are not trained"""
    depth: int
    has_cls: bool
    registers: int
    patch_size: int
    image_size: int
    """its own, pixels"""
    mean: Colours
    deviation: Colours
    normalisation: str
    """whose mean and deviation these are, in words"""
    notes: tuple[str, ...] = ()
    """what else a reader must know, a sentence each"""
    fixed_patch_place: tuple[float, float] | None = None
    """the patch that carries a loss, if one does"""
    draws: Draws = lambda identifiers, grid: ForwardDraws()
    trained_on: DataConfig | None = None
    check_size: Callable[[int], None] = lambda size: None
    """raises InputError when the network itself makes another grid of images of that size"""

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Its blocks, in order, each of which gives the tokens [B, T, D] after it."""
        return list(self.network.blocks)  # type: ignore[arg-type]

    @property
    def parameters(self) -> int:
        """How many numbers its parameters are."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def grid(self, size: int) -> Grid:
        """Rows and columns of patches of images of `size` pixels a side.

        Raises InputError when it is no multiple of the patch, the grid too small or too large to
        measure, or the model makes another grid of such images.
        """
        patch = self.patch_size
        if size > MOST_PATCHES * patch:
            raise InputError(
                f"size {size}: {size // patch} patches a side, but at most {MOST_PATCHES} are "
                f"measured, {MOST_PATCHES * patch} pixels"
            )
        if size % patch or size < 2 * patch:
            below = max(2, size // patch) * patch
            raise InputError(
                f"size {size}: {self.name} needs a multiple of its patch of {patch} pixels, two "
                f"patches or more; nearest are --size {below} and --size {below + patch}"
            )
        self.check_size(size)
        return size // patch, size // patch

    def fixed_patch(self, grid: Grid) -> int | None:
        """The number of the patch that is measured by itself, if there is one."""
        return patch_at(self.fixed_patch_place, grid) if self.fixed_patch_place else None

    def primary_layers(self) -> tuple[int, ...]:
        """The primary layer set: the last third without the final block.

        Of fewer than six blocks all but the final one, at least the first.
        """
        third = self.depth // 3 if self.depth >= 6 else self.depth
        return tuple(range(self.depth - third + 1, self.depth)) or (1,)
