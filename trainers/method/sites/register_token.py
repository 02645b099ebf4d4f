"""The same loss on the first register: a global token that is not called [CLS]."""

from torch import Tensor

from trainers.method.site import PooledSite
from trainers.model.vit import Features


class RegisterToken(PooledSite):
    """The first register of each crop."""

    meaning = "the first register"
    reads_patches = False

    def image(self, features: Features) -> Tensor:
        """The first register, [B, D]."""
        return features.registers[:, 0]


SITE = RegisterToken
