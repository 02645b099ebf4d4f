"""Images that training reads by index, wherever they come from."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from trainers.config import DataConfig
from trainers.data import folder
from trainers.data.arrow import Skipped
from trainers.data.decode import UnreadableImage, decode
from trainers.data.digits import digits
from trainers.data.folder import Progress
from trainers.errors import DataError
from trainers.keys import Stream

KEPT_BYTES = 256 * 2**20
"""Decoded sets up to this size stay in memory; larger ones are decoded again as they are read."""

FEWEST = 2
"""Images of each part of the split: fewer cannot be told apart."""


class ImageSet:
    """n images, resampled to squares of side S, their original shapes, labels and split.

    `digest` is a SHA-256 over paths, labels and encoded bytes. `identifiers`, int64 [n] in
    [0, 2⁶³), name each image for keyed randomness and depend on its relative path alone. `labels`,
    int64 [n], index `class_names`; None without labels. `train` and `test`, int64, are the places
    of the two parts: a keyed choice by identifier, label by label, the same on every machine.
    `skipped` are the files that could not be read.
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
        read: Callable[[int], Image.Image],
        side: int,
    ) -> None:
        self.digest = digest
        self.identifiers = torch.tensor([_identifier(name) for name in names])
        assert len(self.identifiers.unique()) == len(names)
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
        """Whole images squeezed to squares, uint8 [b, 3, S, S], for places int64 [b].

        Raises DataError when the bytes of an indexed image have been damaged since.
        """
        if self._kept is None and len(self) * 3 * self._side**2 <= KEPT_BYTES:
            self._kept = torch.stack([self._square(place) for place in range(len(self))])
        if self._kept is not None:
            return self._kept[places]
        return torch.stack([self._square(place) for place in places.tolist()])

    def aspect(self, places: Tensor) -> Tensor:
        """Width over height of the originals, float32 [b]."""
        return self._aspects[places]

    def _square(self, place: int) -> Tensor:
        """Bilinear, over a wider window when shrinking: in integers, so everywhere the same."""
        image = self._read(place).resize((self._side, self._side), Image.Resampling.BILINEAR)
        square: Tensor = pil_to_tensor(image)
        return square


def open_images(
    config: DataConfig, cache: Path | None, progress: Progress | None = None
) -> ImageSet:
    """The images that `config` names.

    A folder is indexed into the folder `cache` when it is first seen, with `progress` called with
    images done and all; with no cache, each time anew. Labels are the names of the first-level
    sub-folders: none unless there are two or more and every image lies in one. Raises DataError
    when the folder cannot be read or holds fewer than 4 readable images.
    """
    if config.source == "digits":
        return _open_digits(config)
    if cache is not None:
        return _open_folder(config, cache, progress)
    with tempfile.TemporaryDirectory() as passing:  # the mapped file outlives its name
        return _open_folder(config, Path(passing), progress)


def _open_digits(config: DataConfig) -> ImageSet:
    levels, labels = digits()
    return ImageSet(
        digest=hashlib.sha256(levels.tobytes() + labels.numpy().tobytes()).hexdigest(),
        names=[str(place) for place in range(len(levels))],
        labels=labels,
        class_names=tuple("0123456789"),
        aspects=torch.ones(len(levels)),
        skipped=(),
        test_share=config.test_share,
        read=lambda place: Image.fromarray(levels[place]).convert("RGB"),
        side=config.image_size,
    )


def _open_folder(config: DataConfig, cache: Path, progress: Progress | None) -> ImageSet:
    table, digest, skipped = folder.index(config.source, cache, progress)
    if len(table) < 2 * FEWEST:
        broken = ""
        if skipped:
            broken = f" and {len(skipped)} broken, such as {skipped[0].path} ({skipped[0].reason})"
        raise DataError(
            f"image folder {config.source!r} holds {len(table)} readable images{broken}; "
            f"{2 * FEWEST} is the fewest, {FEWEST} to train on and {FEWEST} held out"
        )
    paths, folders = table["path"].to_pylist(), table["label"].to_pylist()
    class_names = tuple(sorted(set(folders)))
    # Images beside the labelled folders have no label, so nobody has.
    if len(class_names) < 2 or "" in class_names:
        class_names = ()
    numbers = {name: number for number, name in enumerate(class_names)}
    encoded = table["image"]

    def read(place: int) -> Image.Image:
        try:
            return decode(encoded[place].as_py())
        except UnreadableImage as error:
            raise DataError(
                f"image {paths[place]} was damaged in its index: {error}; "
                f"delete {cache} to index {config.source!r} again"
            ) from error

    return ImageSet(
        digest=digest,
        names=paths,
        labels=torch.tensor([numbers[name] for name in folders]) if numbers else None,
        class_names=class_names,
        aspects=torch.from_numpy(table["width"].to_numpy() / table["height"].to_numpy()).float(),
        skipped=skipped,
        test_share=config.test_share,
        read=read,
        side=config.image_size,
    )


def _identifier(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def _split(identifiers: Tensor, labels: Tensor | None, share: float) -> tuple[Tensor, Tensor]:
    """Places of training and held-out images, int64, rising.

    Held out are the first of each label in keyed order, `share` of it rounded up or down so that
    the whole comes out right (largest remainders), but at least FEWEST are on each side.
    """
    total = len(identifiers)
    held = min(max(round(share * total), FEWEST), total - FEWEST)
    high, low, _, _ = Stream(0, "split").bits(identifiers, torch.zeros_like(identifiers))
    order = ((high << 31) | (low >> 1)).argsort(stable=True)
    if labels is None:
        labels = torch.zeros_like(identifiers)
    sizes = labels.bincount()
    quotas, remainders = sizes * held // total, sizes * held % total
    quotas[remainders.argsort(descending=True, stable=True)[: held - int(quotas.sum())]] += 1
    order = order[labels[order].argsort(stable=True)]
    is_test = torch.zeros(total, dtype=torch.bool)
    for group, quota in zip(order.split(sizes.tolist()), quotas.tolist(), strict=True):
        is_test[group[:quota]] = True
    return (~is_test).nonzero()[:, 0], is_test.nonzero()[:, 0]
