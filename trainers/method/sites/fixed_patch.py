"""The same loss on one patch, always at the same place of a crop."""

from torch import Tensor

from trainers.method.site import PooledSite
from trainers.model.vit import Features


class FixedPatch(PooledSite):
    """The patch at `loss.fixed_patch_place` of each crop."""

    meaning = "one fixed patch"

    def image(self, features: Features) -> Tensor:
        """That patch, [B, D]."""
        return features.patch_at(self.config.fixed_patch_place)


SITE = FixedPatch
