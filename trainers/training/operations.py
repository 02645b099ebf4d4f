"""Floating-point operations of a run, from its shapes; a multiplication and an addition are two."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainers.config import AugmentConfig, TrainConfig
from trainers.config.stages import halved
from trainers.method.site import has_patch_head, hides_patches, sites
from trainers.model.network import Network
from trainers.model.vit import Features
from trainers.randomness.forward_draws import ForwardDraws
from trainers.training.step import is_trained, needs_patches


@dataclass(frozen=True, kw_only=True)
class Operations:
    """What one image takes, and the sizes behind it."""

    parameters: int
    """of the student"""
    tokens: int
    """of a global crop"""
    forward: float
    """operations of backbone and head for one global crop"""
    full: float
    """operations of one image's part of a step: teacher on global crops, student on all, the
    student's times 3, since a backward pass is about two forward passes"""
    small: float
    """the same while crops are small; 0 where they never are"""
    small_share: float
    """part of the run in which they are"""

    @property
    def update(self) -> float:
        """Of one image's part of a step, mean over the run."""
        return self.small_share * self.small + (1 - self.small_share) * self.full


def operations(config: TrainConfig, classes: int) -> Operations:
    """Operations of `config` with that many `classes`; nothing is computed."""
    # On this device tensors have shapes and no values.
    with torch.device("meta"), torch.no_grad():
        network = Network(
            config,
            max(classes, 2),
            masks=hides_patches(config.loss),
            patch_head=has_patch_head(config),
        )
        augment, share = config.augment, config.augment.small_share
        forward, features = _counted(network, config, augment.global_size, only_first=False)
        head = _flops(lambda: network.head(features.image))
        full = _of_an_update(network, config, augment, head)
        small = _of_an_update(network, config, halved(augment), head) if share else 0.0
    return Operations(
        parameters=sum(p.numel() for p in network.parameters()),
        tokens=features.tokens.shape[1],
        forward=forward + head,
        full=full,
        small=small,
        small_share=share,
    )


def _of_an_update(
    network: Network, config: TrainConfig, augment: AugmentConfig, head: float
) -> float:
    """Operations of one image's part of a step with the crops of `augment`; `head` are a row's."""
    active = sites(config.loss)
    seen = [(augment.global_size, augment.global_crops, True)]
    if augment.local_crops:
        seen.append((augment.local_size, augment.local_crops, False))
    teacher = student = 0.0
    for size, crops, is_global in seen if is_trained(config) else []:
        passed, _ = _counted(network, config, size, only_first=not needs_patches(config))
        patches = (size // config.model.patch_size) ** 2
        rows = sum(site.rows_of_crop(patches, is_global=is_global) for site in active.values())
        student += crops * (passed + rows * head)
        teacher += crops * (passed + rows * head) * (is_global and bool(active))
    return teacher + 3 * student


def _counted(
    network: Network, config: TrainConfig, side: int, *, only_first: bool
) -> tuple[int, Features]:
    """Operations of one image of a side through the backbone, and its features."""
    found: list[Features] = []
    draws = ForwardDraws(cls_patch=torch.zeros(1, dtype=torch.int64))
    image = torch.zeros(1, 3, side, side)
    flops = _flops(lambda: found.append(network(image, draws, only_first=only_first)))
    return flops, found[0]


def _flops(work: Callable[[], object]) -> int:
    # Imported here: it takes half a second, and most that import this module count nothing.
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
