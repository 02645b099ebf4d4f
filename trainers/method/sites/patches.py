"""The same loss on the mean patch token."""

from torch import Tensor

from trainers.method.site import PooledSite
from trainers.model.vit import Features


class Patches(PooledSite):
    """The mean patch token of each crop."""

    meaning = "the mean patch token"

    def image(self, features: Features) -> Tensor:
        """The mean patch token, [B, D]."""
        return features.patches.mean(1)


SITE = Patches
