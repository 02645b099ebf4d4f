"""lightly as a contender: its DINO parts, put together as its documentation does.

The backbone is timm's vision transformer of the same shape, since lightly brings none.
"""

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.contest import Advance
from benchmarks.original import Endless
from benchmarks.setting import Setting
from trainers.data.augment import normalize

NAME = "lightly"


class Training:
    """Student, teacher, loss and optimizer, and the body of the documented training loop."""

    def __init__(self, setting: Setting, device: str) -> None:
        warnings.simplefilter("ignore")
        from lightly.loss import DINOLoss
        from lightly.models.modules import DINOProjectionHead
        from lightly.models.utils import deactivate_requires_grad
        from timm.models.vision_transformer import VisionTransformer

        def head() -> nn.Module:
            made: nn.Module = DINOProjectionHead(
                setting.width,
                setting.hidden,
                setting.bottleneck,
                setting.prototypes,
                freeze_last_layer=1,
            )
            return made.to(device)

        self.device, self.views = device, setting.global_crops
        self.student_backbone = VisionTransformer(
            img_size=setting.global_size,
            patch_size=setting.patch,
            embed_dim=setting.width,
            depth=setting.depth,
            num_heads=setting.heads,
            mlp_ratio=setting.mlp_ratio,
            num_classes=0,
            dynamic_img_size=True,
        ).to(device)
        self.student_head, self.teacher_head = head(), head()
        self.teacher_backbone = copy.deepcopy(self.student_backbone)
        deactivate_requires_grad(self.teacher_backbone)
        deactivate_requires_grad(self.teacher_head)
        self.criterion: Any = DINOLoss(setting.prototypes, warmup_teacher_temp_epochs=0).to(device)
        student = [*self.student_backbone.parameters(), *self.student_head.parameters()]
        self.optimizer = torch.optim.AdamW(student, lr=5e-4)

    def step(self, views: list[Tensor]) -> None:
        """One update."""
        from lightly.models.utils import update_momentum

        update_momentum(self.student_backbone, self.teacher_backbone, m=0.996)
        update_momentum(self.student_head, self.teacher_head, m=0.996)
        views = [view.to(self.device) for view in views]
        with torch.no_grad():
            targets = [
                self.teacher_head(self.teacher_backbone(view)) for view in views[: self.views]
            ]
        outputs = [self.student_head(self.student_backbone(view)) for view in views]
        loss = self.criterion(targets, outputs, epoch=2)
        loss.backward()
        self.student_head.cancel_last_layer_gradients(current_epoch=2)
        self.optimizer.step()
        self.optimizer.zero_grad()


def make_step(setting: Setting, device: str) -> Advance:
    """A contender that updates on the same crops again and again."""
    training = Training(setting, device)
    whole, part = setting.crops()
    views = list(normalize(whole).chunk(setting.global_crops))
    if setting.local_crops:
        views += normalize(part).chunk(setting.local_crops)
    views = [view.contiguous() for view in views]

    def advance(steps: int) -> float:
        for _ in range(steps):
            training.step(views)
        return float(steps * setting.batch)

    return advance


def loader_of(setting: Setting, folder: str, workers: int) -> Any:
    """Its transform with its defaults, but for sizes, scales and the number of crops."""
    from lightly.transforms.dino_transform import DINOTransform
    from torchvision import datasets

    transform = DINOTransform(
        global_crop_size=setting.global_size,
        global_crop_scale=(0.4, 1.0),
        local_crop_size=setting.local_size,
        local_crop_scale=(0.05, 0.4),
        n_local_views=setting.local_crops,
    )
    return torch.utils.data.DataLoader(
        datasets.ImageFolder(folder, transform=transform),
        batch_size=setting.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def make_training(setting: Setting, device: str, folder: str, workers: int) -> Advance:
    """Images from disk to updated weights."""
    training = Training(setting, device)
    batches = Endless(loader_of(setting, folder, workers))

    def advance(steps: int) -> float:
        for views, _ in batches.take(steps):
            training.step(views)
        return float(steps * setting.batch)

    return advance


def make_pipeline(setting: Setting, device: str, folder: str, workers: int) -> Advance:
    """Images from disk to normalised crops on the device."""
    warnings.simplefilter("ignore")
    batches = Endless(loader_of(setting, folder, workers))

    def advance(steps: int) -> float:
        for views, _ in batches.take(steps):
            [view.to(device) for view in views]
        return float(steps * setting.batch)

    return advance
