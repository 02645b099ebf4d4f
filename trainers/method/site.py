"""A site of self-distillation: which rows the head sees, which targets they get, and which loss.

Each file in `trainers/method/sites/` is one site. It sets SITE to a subclass of :class:`Site`, and
its name is that of the site and of its metrics `loss/NAME…`. Its weight is the knob `loss.NAME`,
where LossConfig has one, else its entry in `loss.further`, so that a site of one's own is one file.
Nothing else names a site; what those with a knob need of a configuration is checked beside it.

Shapes: m images of a part of a batch, V views of one size (G global ones), N patches of a view, R
rows, D features, K prototypes. Rows are in order of view, then image, then patch.
"""

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import trainers.method.sites
from trainers.config import LossConfig, TrainConfig
from trainers.errors import ConfigError
from trainers.method.losses import distillation, entropy
from trainers.model.vit import Features

Head = Callable[[Tensor], Tensor]
"""Logits [R, K] of rows [R, D]."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a network makes of the views of one size of some images."""

    features: Features
    """of V · m crops"""
    images: int
    """m"""
    hidden: Tensor | None
    """bool [V · m, N], the patches that the student does not see; None where it sees them all"""
    places: Tensor | None = None
    """int64 [R], the places of those among all V · m · N; without them, a GPU has to count"""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the student is to predict, of the teacher's global views."""

    rows: Tensor
    """[R, K], rows sum to 1"""
    kept: Tensor | None
    """what the site kept of the teacher"""


class Site(ABC):
    """One site, under a configuration that gives it a weight."""

    meaning: ClassVar[str]
    """where the loss sits, in words that follow `on`"""
    reads_patches: ClassVar[bool] = True
    """whether it looks at patch tokens of the last block, which otherwise are not computed"""
    hides_patches: ClassVar[bool] = False
    """whether patches of the student's global crops are to be hidden from it"""
    each_patch: ClassVar[bool]
    """whether there is a row for each patch, and not one for each crop; such sites have their own
    teacher temperature and may have their own head"""

    def __init__(self, config: LossConfig, weight: float) -> None:
        self.config, self.weight = config, weight

    @abstractmethod
    def rows(self, seen: Seen) -> Tensor:
        """What the head sees of some views, [R, D]."""

    @abstractmethod
    def loss(self, targets: Targets, student: Sequence[Seen], head: Head) -> Tensor:
        """The loss, a scalar, nats. `student` saw the global views, then the local ones if any."""

    @abstractmethod
    def image(self, features: Features) -> Tensor:
        """One row an image, [B, D], by which collapse is judged."""

    @abstractmethod
    def rows_of_crop(self, patches: int, *, is_global: bool) -> float:
        """How many rows the head sees of one crop with that many patches, on average."""

    def keep(self, teacher: Seen) -> Tensor | None:
        """What the loss needs of the teacher's views besides targets."""
        return None

    def target_entropy(self, targets: Targets, student: Sequence[Seen]) -> Tensor:
        """Mean entropy of the targets, each weighted as in `loss`; a scalar, nats.

        So `loss` minus this is a mean Kullback-Leibler divergence, and never negative.
        """
        return entropy(targets.rows)


class PooledSite(Site):
    """One row a crop; every view is compared with every other (Caron et al. 2021, eq. 3)."""

    each_patch = False

    def rows(self, seen: Seen) -> Tensor:
        """[V · m, D]"""
        return self.image(seen.features)

    def loss(self, targets: Targets, student: Sequence[Seen], head: Head) -> Tensor:
        """Mean cross-entropy over pairs of different views."""
        logits = head(torch.cat([self.rows(seen) for seen in student]))
        by_view = (-1, student[0].images)
        return distillation(
            targets.rows.unflatten(0, by_view),
            logits.unflatten(0, by_view),
            self.config.student_temperature,
        )

    def rows_of_crop(self, patches: int, *, is_global: bool) -> float:
        """1"""
        return 1


class PatchSite(Site):
    """A row for each of some patches."""

    each_patch = True

    def image(self, features: Features) -> Tensor:
        """The patch at `loss.fixed_patch_place`."""
        return features.patch_at(self.config.fixed_patch_place)


@functools.cache
def all_sites() -> Mapping[str, type[Site]]:
    """Every site by name, pooled ones first, then in the order of the knobs.

    Raises ConfigError for a file without a site.
    """
    package = trainers.method.sites
    found = {}
    for module in pkgutil.iter_modules(package.__path__):
        name = f"{package.__name__}.{module.name}"
        site = getattr(importlib.import_module(name), "SITE", None)
        if not (isinstance(site, type) and issubclass(site, Site)):
            raise ConfigError(f"{name} must set SITE to a subclass of Site, got {site!r}")
        found[module.name] = site
    knobs = list(LossConfig.model_fields)
    places = {name: knobs.index(name) if name in knobs else len(knobs) for name in found}
    # The order is that of the sum, which decides its last bits.
    order = sorted(found, key=lambda name: (found[name].each_patch, places[name]))
    return {name: found[name] for name in order}


def sites(config: LossConfig) -> dict[str, Site]:
    """The sites that have a weight, by name.

    Raises ConfigError when `loss.further` names no site, or one that has a knob.
    """
    known = all_sites()
    further = dict(config.further)
    free = [name for name in known if name not in LossConfig.model_fields]
    if wrong := [name for name in further if name not in free]:
        raise ConfigError(
            f"loss.further: {wrong[0]} is no file in trainers/method/sites without a knob of its "
            f"own (allowed: {', '.join(free) or 'none is there'})"
        )
    weights = {name: further.get(name) or getattr(config, name, 0.0) for name in known}
    return {name: known[name](config, weight) for name, weight in weights.items() if weight}


def hides_patches(config: LossConfig) -> bool:
    """Whether patches of the student's global crops are hidden from it."""
    return any(site.hides_patches for site in sites(config).values())


def has_patch_head(config: TrainConfig) -> bool:
    """Whether rows of patches have a head of their own."""
    each_patch = any(site.each_patch for site in sites(config.loss).values())
    return each_patch and config.head.patches == "own"
