"""The parts of a worker's images that go forward and backward one by one, and their draws."""

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainers.config import TrainConfig
from trainers.grid import Grid
from trainers.method.site import hides_patches
from trainers.randomness.forward_draws import (
    ForwardDraws,
    Keyed,
    draws_on,
    drop_path,
    keyed,
    masks,
    wandering_cls,
)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """m images of a worker, and the draws of their rows by who sees them."""

    place: slice
    """of the images among those of the worker"""
    teacher: ForwardDraws
    global_views: ForwardDraws
    local_views: ForwardDraws

    @property
    def draws(self) -> tuple[ForwardDraws, ...]:
        """All of them."""
        return self.teacher, self.global_views, self.local_views

    @property
    def images(self) -> int:
        """m"""
        return int(self.place.stop - self.place.start)

    def crops(self, views: Tensor, images: int) -> Tensor:
        """The rows of this part among `views` [V · B, ...] of all B `images`, [V · m, ...]."""
        if self.images == images:
            return views
        return views.unflatten(0, (-1, images))[:, self.place].flatten(0, 1)


def pieces(
    identifiers: Tensor, epochs: Tensor, config: TrainConfig, grid: Grid, device: torch.device
) -> list[Piece]:
    """The parts of the images that `identifiers` and `epochs`, int64 [B] on the host, name.

    `grid` is that of the step's global crops, which may be smaller than the full one. All draws of
    a step are made on the host, and come to the device together.
    """
    images, first_local = len(identifiers), config.augment.global_crops
    global_views = range(first_local)
    views = range(first_local + config.augment.local_crops)
    full = (config.augment.global_size // config.model.patch_size,) * 2

    def source(purpose: str, views: range) -> Keyed:
        return keyed(config.seed, purpose, identifiers, epochs, views)

    teacher = ForwardDraws(
        cls_patch=wandering_cls(source("cls position/teacher", global_views), config.model, full)
    )
    student = ForwardDraws(
        keep=drop_path(source("drop path", views), config.model),
        cls_patch=wandering_cls(source("cls position/student", views), config.model, full),
    )
    hidden = hides_patches(config.loss)
    mask = masks(source("mask", global_views), config.loss, grid) if hidden else None

    sizes = [len(part) for part in torch.arange(images).tensor_split(config.compute.accumulate)]
    ends = [0, *itertools.accumulate(sizes)]
    places = [slice(start, end) for start, end in itertools.pairwise(ends)]
    rows = torch.arange(len(views) * images).view(len(views), images)
    made = []
    for place in places:
        of_global, of_local = rows[:first_local, place].flatten(), rows[first_local:, place]
        shown = None if mask is None else mask[of_global]
        made += [
            teacher.rows(of_global),
            replace(student.rows(of_global), mask=shown),
            student.rows(of_local.flatten()),
        ]
    arrived = iter(draws_on(device, made))
    return [
        Piece(
            place=place,
            teacher=next(arrived),
            global_views=next(arrived),
            local_views=next(arrived),
        )
        for place in places
    ]
