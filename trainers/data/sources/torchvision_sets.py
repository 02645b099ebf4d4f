"""Data sets that torchvision knows, from its folder of downloads; downloaded if they are not there.

Images that are files keep their bytes. CIFAR and STL-10 hold arrays, which are stored as PPM.
"""

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from trainers.config import nearest
from trainers.data.portable import portable
from trainers.data.sources.source import Item, Skipped, split_called
from trainers.errors import DataError, printable, reason

DEFAULT_ROOT = Path("~/.cache/dinolab/torchvision")


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One split: arrays uint8 [n, height, width, 3], or paths; a label for each."""

    split: str
    images: np.ndarray | Sequence[Path]
    labels: Sequence[str]


def _cifar(kind: Any, root: Path, download: bool) -> list[_Part]:
    parts = []
    for split in ("train", "test"):
        found = kind(root, train=split == "train", download=download)
        labels = [found.classes[target] for target in found.targets]
        parts.append(_Part(split=split, images=found.data, labels=labels))
    return parts


def _stl10(splits: dict[str, str], root: Path, download: bool) -> list[_Part]:
    parts = []
    for theirs, ours in splits.items():
        found = datasets.STL10(root, split=theirs, download=download)
        labels = ["" if label < 0 else found.classes[label] for label in found.labels]
        parts.append(
            _Part(split=ours, images=np.transpose(found.data, (0, 2, 3, 1)), labels=labels)
        )
    return parts


def _files(kind: Any, splits: Sequence[str], root: Path, download: bool) -> list[_Part]:
    """Sets that give paths instead of images when their loader does nothing."""
    parts = []
    for split in splits:
        found = kind(root, split=split, download=download, loader=Path)
        pairs = [found[place] for place in range(len(found))]
        # Imagenette has several words for a class.
        classes = [one if isinstance(one, str) else one[0] for one in found.classes]
        labels = [classes[target] for _, target in pairs]
        parts.append(_Part(split=split, images=[path for path, _ in pairs], labels=labels))
    return parts


def _pet(root: Path, download: bool) -> list[_Part]:
    parts = []
    for theirs, ours in (("trainval", "train"), ("test", "test")):
        found = datasets.OxfordIIITPet(root, split=theirs, download=download)
        labels = [found.classes[target] for target in found._labels]
        parts.append(_Part(split=ours, images=found._images, labels=labels))
    return parts


_SETS: dict[str, Callable[[Path, bool], list[_Part]]] = {
    "cifar10": lambda root, download: _cifar(datasets.CIFAR10, root, download),
    "cifar100": lambda root, download: _cifar(datasets.CIFAR100, root, download),
    "stl10": lambda root, download: _stl10({"train": "train", "test": "test"}, root, download),
    "stl10-unlabeled": lambda root, download: _stl10({"unlabeled": ""}, root, download),
    "imagenette": lambda root, download: _files(
        datasets.Imagenette, ("train", "val"), root, download
    ),
    "flowers102": lambda root, download: _files(
        datasets.Flowers102, ("train", "val", "test"), root, download
    ),
    "oxford-iiit-pet": _pet,
    "food101": lambda root, download: _files(datasets.Food101, ("train", "test"), root, download),
}
NAMES = tuple(_SETS)
"""What can be named. ImageNet is a folder with `train` and `val`, and no name is needed for it."""


class TorchvisionSet:
    """The data set `name` (one of NAMES) under `root`, splits one after another.

    Raises DataError when the name is unknown, and when the data set is neither there nor can be
    downloaded.
    """

    def __init__(self, name: str, root: str) -> None:
        if name not in _SETS:
            raise DataError(
                f"torchvision:{printable(name)}: no such data set (allowed: {', '.join(NAMES)})"
                + nearest(name.lower(), list(NAMES))
            )
        try:
            # Absolute before anything else: torchvision keeps the root as it is given.
            self._root = Path(root or DEFAULT_ROOT).expanduser().absolute()
        except RuntimeError as error:
            raise DataError(f"{printable(root)} can be no folder: {reason(error)}") from error
        self.name = f"torchvision:{name} in {self._root}"
        self._parts = self._load(name)
        self._starts = np.cumsum([0, *(len(part.labels) for part in self._parts)]).tolist()

    def _load(self, name: str) -> list[_Part]:
        shown = printable(self.name)
        try:
            return _SETS[name](self._root, False)
        except RuntimeError:  # how torchvision says that it is not there
            pass
        except Exception as error:  # its readers raise anything on broken files
            raise DataError(f"{shown} cannot be read: {reason(error)}") from error
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return _SETS[name](self._root, True)
        except Exception as error:  # urllib, tarfile, assertions
            raise DataError(
                f"{shown} is not there, or is not whole, and cannot be downloaded "
                f"({reason(error)}): put it there in torchvision's own layout, or give "
                f"torchvision:{name}:FOLDER"
            ) from error

    def __len__(self) -> int:
        return int(self._starts[-1])

    def fingerprint(self, places: range) -> str:
        """A hash of names, labels, and what the pixels or the files' sizes and times are."""
        listing = hashlib.sha256()
        for split, place, part in self._within(places):
            image = part.images[place]
            listing.update(f"{split}\0{place}\0{part.labels[place]}\0".encode())
            if isinstance(image, Path):
                with contextlib.suppress(OSError):
                    status = image.stat()
                    listing.update(f"{image}\0{status.st_size} {status.st_mtime_ns}".encode())
            else:
                listing.update(portable(image))
        return listing.hexdigest()

    def items(self, places: range) -> Iterator[Item | Skipped]:
        """Files as they are; arrays as PPM, called by split and place."""
        for split, place, part in self._within(places):
            image = part.images[place]
            if not isinstance(image, Path):
                name, encoded = f"{split}/{place:06d}.ppm", portable(image)
            else:
                name = image.relative_to(self._root).as_posix()
                try:
                    encoded = image.read_bytes()
                except OSError as error:
                    yield Skipped(path=name, reason=f"cannot be read: {reason(error)}")
                    continue
            label = part.labels[place]
            yield Item(name=name, label=label, split=split_called(split), image=encoded)

    def _within(self, places: range) -> Iterator[tuple[str, int, _Part]]:
        for part, start, stop in zip(self._parts, self._starts, self._starts[1:], strict=False):
            for place in range(max(places.start, start), min(places.stop, stop)):
                yield part.split, place - start, part
