"""The original implementation (facebookresearch/dino) as a contender, from a path on this machine.

Nothing of it is copied: its modules are imported from the path and its own `train_one_epoch` is
called. A process group of one worker is set up, which its loss asks for.

What differs from running its script:

- The student is not wrapped in DistributedDataParallel but in a plain holder with the same
  `.module`, which saves the original the copies that one worker does not need.
- No stochastic depth (`drop_path_rate` 0), so that both train the same function.
- Without a GPU, in the contender's process only: `Tensor.cuda` returns the tensor itself,
  `torch.cuda.synchronize` does nothing, and the averages that it prints after an epoch are not
  summed over workers, which would need a GPU.
- Its settings of one layer sizes are given as arguments of its classes, where its script names one
  of three models.
"""

import argparse
import contextlib
import functools
import importlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from benchmarks.contest import Advance
from benchmarks.setting import Setting
from trainers.data.augment import normalize

NAME = "original"


class Original:
    """The modules of the original, imported from a path, with a process group of one worker."""

    def __init__(self, path: str, device: str) -> None:
        self.device = torch.device(device)
        sys.path.insert(0, str(Path(path).expanduser().resolve()))
        warnings.simplefilter("ignore")  # it is older than this torch
        self.main: Any = importlib.import_module("main_dino")
        self.utils: Any = importlib.import_module("utils")
        self.models: Any = importlib.import_module("vision_transformer")
        if self.device.type == "cpu":
            Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]
            torch.cuda.synchronize = lambda *_, **__: None
            self.utils.is_dist_avail_and_initialized = lambda: False
        meeting = Path(tempfile.mkdtemp()) / "meeting"
        torch.distributed.init_process_group(
            "nccl" if self.device.type == "cuda" else "gloo",
            init_method=f"file://{meeting}",
            rank=0,
            world_size=1,
        )

    def network(self, setting: Setting) -> nn.Module:
        """Backbone and head of a setting, with unit-norm prototypes."""
        backbone = self.models.VisionTransformer(
            img_size=[setting.global_size],
            patch_size=setting.patch,
            embed_dim=setting.width,
            depth=setting.depth,
            num_heads=setting.heads,
            mlp_ratio=setting.mlp_ratio,
            qkv_bias=True,
            norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
        )
        head = self.models.DINOHead(
            setting.width,
            setting.prototypes,
            norm_last_layer=True,
            hidden_dim=setting.hidden,
            bottleneck_dim=setting.bottleneck,
        )
        network: nn.Module = self.utils.MultiCropWrapper(backbone, head).to(self.device)
        return network


class _Holder(nn.Module):
    """Has the student as `.module`, as a distributed wrapper would."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, crops: list[Tensor]) -> Tensor:
        """The student's output."""
        output: Tensor = self.module(crops)
        return output


class Training:
    """Student, teacher, loss and optimizer of the original, as its script sets them up."""

    def __init__(
        self,
        original: Original,
        setting: Setting,
        *,
        epochs: int,
        teacher_temperatures: tuple[float, float, int] = (0.04, 0.04, 0),
        clip: float = 3.0,
        frozen_epochs: int = 1,
    ) -> None:
        self.original = original
        self.student, self.teacher = original.network(setting), original.network(setting)
        self.holder = _Holder(self.student)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.loss = original.main.DINOLoss(
            setting.prototypes,
            setting.global_crops + setting.local_crops,
            *teacher_temperatures,
            epochs,
        ).to(original.device)
        self.optimizer = torch.optim.AdamW(original.utils.get_params_groups(self.holder))
        # Its own fp16 mode on a GPU, its fp32 mode on a CPU, which has no other.
        self.scaler = torch.amp.GradScaler() if original.device.type == "cuda" else None
        self.arguments = argparse.Namespace(
            epochs=epochs, clip_grad=clip, freeze_last_layer=frozen_epochs
        )

    def epoch(self, number: int, loader: Any, schedules: tuple[Any, Any, Any]) -> None:
        """Its `train_one_epoch` over `loader`, silently.

        `schedules` are learning rate, weight decay and momentum by global step.
        """
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            self.original.main.train_one_epoch(
                self.holder,
                self.teacher,
                self.teacher,
                self.loss,
                loader,
                self.optimizer,
                *schedules,
                number,
                self.scaler,
                self.arguments,
            )


class _Always:
    """One value for every step."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __getitem__(self, step: int) -> float:
        return self.value


CONSTANT = (_Always(5e-4), _Always(0.04), _Always(0.996))
"""Schedules of a benchmark, where values do not matter."""


class Endless:
    """So many batches of a loader that starts again when it ends."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.count = loader, 0
        self.batches = self._forever()

    def _forever(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def take(self, count: int) -> "Endless":
        """This, now that many batches long."""
        self.count = count
        return self

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.count):
            yield next(self.batches)


def make_step(path: str, setting: Setting, device: str) -> Advance:
    """A contender that updates on the same crops again and again."""
    training = Training(Original(path, device), setting, epochs=2)
    whole, part = setting.crops()
    crops = list(normalize(whole).chunk(setting.global_crops))
    if setting.local_crops:
        crops += normalize(part).chunk(setting.local_crops)
    batch = ([crop.contiguous().to(device) for crop in crops], None)

    def advance(steps: int) -> float:
        training.epoch(1, [batch] * steps, CONSTANT)
        return float(steps * setting.batch)

    return advance


def loader_of(original: Original, setting: Setting, folder: str, workers: int) -> Any:
    """Its loader over a folder: PIL, its augmentation, and its sizes of crops.

    Its augmentation has 224 and 96 pixels written into it; for other sizes the same objects are
    kept and their size is set.
    """
    from torchvision import datasets

    transform = original.main.DataAugmentationDINO((0.4, 1.0), (0.05, 0.4), setting.local_crops)
    for composed, size in (
        (transform.global_transfo1, setting.global_size),
        (transform.global_transfo2, setting.global_size),
        (transform.local_transfo, setting.local_size),
    ):
        composed.transforms[0].size = (size, size)
    dataset = datasets.ImageFolder(folder, transform=transform)
    return torch.utils.data.DataLoader(
        dataset,
        sampler=torch.utils.data.DistributedSampler(dataset, shuffle=True),
        batch_size=setting.batch,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=original.device.type == "cuda",
        drop_last=True,
    )


def make_pipeline(path: str, setting: Setting, device: str, folder: str, workers: int) -> Advance:
    """Images from disk to normalised crops on the device."""
    original = Original(path, device)
    batches = Endless(loader_of(original, setting, folder, workers))

    def advance(steps: int) -> float:
        for crops, _ in batches.take(steps):
            [crop.to(device, non_blocking=True) for crop in crops]
        return float(steps * setting.batch)

    return advance


def make_training(path: str, setting: Setting, device: str, folder: str, workers: int) -> Advance:
    """Images from disk to updated weights."""
    original = Original(path, device)
    training = Training(original, setting, epochs=2)
    batches = Endless(loader_of(original, setting, folder, workers))

    def advance(steps: int) -> float:
        training.epoch(1, batches.take(steps), CONSTANT)
        return float(steps * setting.batch)

    return advance
