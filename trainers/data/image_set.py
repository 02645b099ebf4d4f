"""Images that training reads by index, wherever they come from."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import pil_to_tensor

from trainers.config import DataConfig
from trainers.data import folder
from trainers.data.arrow import Skipped
from trainers.data.decode import decode
from trainers.data.digits import digits
from trainers.errors import DataError
from trainers.keys import Stream

KEPT_BYTES = 256 * 2**20
"""Decoded sets up to this size stay in memory; larger ones are decoded again as they are read."""


class ImageSet:
    """n images, resampled to squares of side S, their original shapes, labels and split.

    `digest` is a SHA-256 over paths, labels and encoded bytes. `identifiers`, int64 [n] in
    [0, 2⁶³), name each image for keyed randomness and depend on its relative path alone. `labels`,
    int64 [n], index `class_names`; None without labels. `train` and `test`, int64, are the places
    of the two parts: a keyed choice by identifier, label by label, the same on every machine.
    """

    def __init__(
        self,
        *,
        digest: str,
        names: list[str],
        labels: Tensor | None,
        class_names: tuple[str, ...],
        aspects: Tensor,
        skipped: tuple[Skipped, ...],
        test_share: float,
        read: Callable[[int], Tensor],
        side: int,
    ) -> None:
        self.digest = digest
        self.identifiers = torch.tensor([_identifier(name) for name in names])
        self.labels = labels
        self.class_names = class_names
        self.skipped = skipped
        self.train, self.test = _split(self.identifiers, labels, test_share)
        self._aspects = aspects
        self._read = read
        self._side = side
        self._kept: Tensor | None = None

    def __len__(self) -> int:
        return len(self.identifiers)

    def pixels(self, places: Tensor) -> Tensor:
        """Whole images squeezed to squares, uint8 [b, 3, S, S], for places int64 [b]."""
        if self._kept is None and len(self) * 3 * self._side**2 <= KEPT_BYTES:
            self._kept = torch.stack([self._read(place) for place in range(len(self))])
        if self._kept is not None:
            return self._kept[places]
        return torch.stack([self._read(place) for place in places.tolist()])

    def aspect(self, places: Tensor) -> Tensor:
        """Width over height of the originals, float32 [b]."""
        return self._aspects[places]


def _identifier(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def _split(identifiers: Tensor, labels: Tensor | None, share: float) -> tuple[Tensor, Tensor]:
    """Places of training and held-out images: of each label the `share` first in keyed order."""
    if len(identifiers) < 4:
        raise DataError(f"{len(identifiers)} readable images are too few; 4 is the fewest")
    order = Stream(0, "split").bits(identifiers, torch.zeros_like(identifiers))[0].argsort()
    groups = [order]
    if labels is not None:
        groups = [order[labels[order] == label] for label in labels.unique()]
    held = [group[: round(share * len(group))] for group in groups]
    test = torch.cat(held).sort().values
    if len(test) < 2:
        test = order[:2].sort().values
    is_test = torch.zeros(len(identifiers), dtype=torch.bool)
    is_test[test] = True
    return (~is_test).nonzero()[:, 0], test


def open_images(
    config: DataConfig, cache: Path, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> ImageSet:
    """The images that `config` names.

    A folder is indexed into `cache` when it is first seen, with `progress` called on the way.
    Raises DataError when there is nothing to open.
    """
    if config.source == "digits":
        return _open_digits(config)
    path = Path(config.source).expanduser()
    table, digest, skipped = folder.index(path, cache, progress)
    return _open_table(config, table, digest, skipped)


def _open_digits(config: DataConfig) -> ImageSet:
    pixels, labels = digits()
    resized = functional.interpolate(
        pixels.float(), (config.image_size,) * 2, mode="bilinear", antialias=True
    )
    squares = resized.round().to(torch.uint8)
    content = pixels.numpy().tobytes() + labels.numpy().tobytes()
    return ImageSet(
        digest=hashlib.sha256(content).hexdigest(),
        names=[str(place) for place in range(len(pixels))],
        labels=labels,
        class_names=tuple("0123456789"),
        aspects=torch.ones(len(pixels)),
        skipped=(),
        test_share=config.test_share,
        read=lambda place: squares[place],
        side=config.image_size,
    )


def _open_table(
    config: DataConfig, table: pa.Table, digest: str, skipped: tuple[Skipped, ...]
) -> ImageSet:
    named = table["label"].to_pylist()
    class_names = tuple(sorted({name for name in named if name}))
    labels = None
    # Images beside the labelled folders have no label, so nobody has.
    if len(class_names) > 1 and all(named):
        labels = torch.tensor([class_names.index(name) for name in named])
    encoded = table["image"]
    side = config.image_size

    def read(place: int) -> Tensor:
        image = decode(encoded[place].as_py())
        return pil_to_tensor(image.resize((side, side), Image.Resampling.BILINEAR))

    width = torch.tensor(table["width"].to_pylist(), dtype=torch.float32)
    height = torch.tensor(table["height"].to_pylist(), dtype=torch.float32)
    return ImageSet(
        digest=digest,
        names=table["path"].to_pylist(),
        labels=labels,
        class_names=class_names if labels is not None else (),
        aspects=width / height,
        skipped=skipped,
        test_share=config.test_share,
        read=read,
        side=side,
    )
