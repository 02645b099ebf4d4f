"""What is trained: a backbone, its projection heads, and a classifier where labels are learned."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainers.config import TrainConfig
from trainers.model.head import ProjectionHead
from trainers.model.vit import Features, Observer, VisionTransformer
from trainers.randomness.forward_draws import ForwardDraws


class Network(nn.Module):
    """A backbone, its projection head, and a linear classifier when labels are learned.

    With `masks`, patches can be hidden from it. With `patch_head`, rows of patches have a head of
    their own.
    """

    patch_head: ProjectionHead | None

    def __init__(
        self,
        config: TrainConfig,
        classes: int = 0,
        *,
        masks: bool = False,
        patch_head: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = VisionTransformer(config.model, config.augment.global_size, masks=masks)
        self.head = ProjectionHead(config.model.width, config.head)
        self.patch_head = ProjectionHead(config.model.width, config.head) if patch_head else None
        if config.loss.labels:
            assert classes >= 2, "labels need two classes or more"
            self.classifier = nn.Linear(config.model.width, classes)

    @property
    def last_layer(self) -> list[nn.Parameter]:
        """The parameters that DINO keeps still in the first steps."""
        heads = (self.head, self.patch_head)
        return [parameter for head in heads if head for parameter in head.last_layer]

    def head_of(self, *, each_patch: bool) -> ProjectionHead:
        """The head of a site, which has a row for each patch or one for each crop."""
        return self.patch_head if each_patch and self.patch_head is not None else self.head

    def forward(
        self,
        images: Tensor,
        draws: ForwardDraws | None = None,
        *,
        only_first: bool = False,
        observe: Observer | None = None,
    ) -> Features:
        """Features of images [B, 3, S, S]; the head is applied to a read-out of them."""
        features: Features = self.backbone(images, draws, only_first=only_first, observe=observe)
        return features


class Uninitialised(TorchFunctionMode):
    """Inside, layers are made without PyTorch's own random values, which would be replaced."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        options = options or {}
        if getattr(function, "__module__", "") == "torch.nn.init":
            return options["tensor"] if "tensor" in options else arguments[0]
        return function(*arguments, **options)
