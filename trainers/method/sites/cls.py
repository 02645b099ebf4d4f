"""The loss on [CLS], DINO's own (Caron et al. 2021)."""

from torch import Tensor

from trainers.method.site import PooledSite
from trainers.model.vit import Features


class Cls(PooledSite):
    """[CLS] of each crop."""

    meaning = "[CLS]"
    reads_patches = False

    def image(self, features: Features) -> Tensor:
        """[CLS], [B, D]."""
        return features.cls


SITE = Cls
