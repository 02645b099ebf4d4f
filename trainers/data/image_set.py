"""Images that training reads by index, wherever they come from."""

import contextlib
import hashlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from trainers.config import DataConfig, nearest
from trainers.config.data import EMBEDDED, EMBEDDED_NAMES, SMALL_SQUARE
from trainers.data import arrow
from trainers.data.arrow import Manifest, identifier
from trainers.data.cut import Images
from trainers.data.decode import UnreadableImage, decode_to, decoding_threads, side_by_side
from trainers.data.digits import digits
from trainers.data.equalised import equalised
from trainers.data.ingest import Progress, ingest
from trainers.data.photographs import CLASS_NAMES, Crops, photographs
from trainers.data.portable import portable
from trainers.data.scenes import CLASSES, Scenes, scenes
from trainers.data.sources.folder import Folder
from trainers.data.sources.source import Skipped
from trainers.errors import DataError, printable, reason
from trainers.randomness.streams import Stream
from trainers.system.storage import Location, locate
from trainers.system.transfer import sent_images

KEPT_BYTES = 256 * 2**20
"""Decoded sets up to this size stay in memory; larger ones are decoded again as they are read."""

FEWEST = 2
"""Images of each part of the split: fewer cannot be told apart."""

_CPU = torch.device("cpu")


class ImageSet:
    """n images, their original shapes, labels and split.

    They are squeezed to squares of side S, or left as they are where `side` is 0.
    `digest` is a SHA-256 over names, labels, splits and encoded bytes. `identifiers`, int64 [n] in
    [0, 2⁶³), name each image for keyed randomness and depend on its name alone. `labels`, int64
    [n], index `class_names`; None without labels. `train` and `test`, int64, are the places of the
    two parts: those that the data set declares, else a keyed choice by identifier, label by label,
    the same on every machine; `declared` tells which. `skipped` are the files that could not be
    read.
    """

    def __init__(
        self,
        *,
        digest: str,
        identifiers: Tensor,
        labels: Tensor | None,
        class_names: tuple[str, ...],
        sizes: Tensor,
        skipped: tuple[Skipped, ...],
        parts: tuple[Tensor, Tensor],
        read: Callable[[int], Any],
        side: int,
        name: Callable[[int], str] = str,
        remedy: str = "",
        declared: bool = False,
    ) -> None:
        self.digest = digest
        self.identifiers = identifiers
        assert len(identifiers.unique()) == len(identifiers)
        self.labels = labels
        self.class_names = class_names
        self.skipped = skipped
        self.train, self.test = parts
        self.declared = declared
        widths, heights = sizes.unbind(1)
        self._aspects = (widths.double() / heights).float()
        self._bytes = 3 * (side**2 * len(sizes) if side else int((widths * heights).sum()))
        self._read = read
        self._side = side
        self.name = name
        """of the image at a place; its number where the data set has no names"""
        self._remedy = remedy
        self._kept: Images | None = None
        self._keeping = threading.Lock()

    def __len__(self) -> int:
        return len(self.identifiers)

    def pixels(self, places: Tensor, device: torch.device = _CPU) -> Images:
        """Whole images for places int64 [b], where crops of them are cut.

        Squeezed to squares, uint8 [b, 3, S, S], or as decoded, b times uint8 [3, H, W]. That is on
        `device`, but squares so small that they are cut between pixels stay on the CPU. They are
        decoded side by side on `decoding_threads(device)` threads; JPEGs for a CUDA device on that
        device. Raises DataError when the bytes of an indexed image have been damaged since.
        """
        if 0 < self._side <= SMALL_SQUARE:
            device = _CPU
        with self._keeping:  # several threads may begin at once
            if self._kept is None and self._bytes <= KEPT_BYTES:
                self._kept = self._decoded(range(len(self)), decoding_threads(device))
        if self._kept is not None:
            if isinstance(self._kept, Tensor):
                return sent_images(self._kept[places], device)
            return sent_images([self._kept[place] for place in places.tolist()], device)
        if device.type == "cuda":
            # Here, since torchvision takes its time to import and a CPU has no use for it.
            from trainers.data.gpu_decode import decode_on

            return decode_on(device, places.tolist(), self._read, self._at, self._side)
        return self._at(places.tolist(), device)

    def _at(self, places: list[int], device: torch.device) -> Images:
        """Images decoded on the CPU, on `device`."""
        return sent_images(self._decoded(places, decoding_threads(device)), device)

    def shuffled(self, places: Tensor) -> Tensor:
        """The places, int64 [b], in an order keyed by the names of their images.

        The same for every run and network. Measurements that look at some of the images take the
        first in this order: in that of most data sets these would be of one label.
        """
        identifiers = self.identifiers[places]
        order = Stream(0, "measured images").order(identifiers, torch.zeros_like(identifiers))
        return places[order]

    def aspect(self, places: Tensor) -> Tensor:
        """Width over height of the originals, float32 [b]."""
        return self._aspects[places]

    def _decoded(self, places: "range | list[int]", threads: int) -> Images:
        if not self._side:
            return side_by_side(self._decode, places, threads)
        # Colours side by side, as decoders leave them and crops are cut fastest.
        squares = torch.empty(
            (len(places), 3, self._side, self._side),
            dtype=torch.uint8,
            memory_format=torch.channels_last,
        )

        def fill(row: int) -> None:
            squares[row] = self._decode(places[row])

        side_by_side(fill, range(len(places)), threads)
        return squares

    def _decode(self, place: int) -> Tensor:
        try:
            return decode_to(self._read(place), self._side)
        except UnreadableImage as error:
            raise DataError(
                f"image {self.name(place)} was damaged in its index: {error}; {self._remedy}"
            ) from error


def open_images(
    config: DataConfig, cache: Path | None, progress: Progress | None = None
) -> ImageSet:
    """The images that `config` names: an embedded set, a folder of images, or an ingested one.

    A folder is ingested into the folder `cache` when it is first seen, and a data set on object
    storage is copied there part by part, with `progress` called with images done and all; with no
    cache, each time anew. All workers of a run may call this at once, and share the work where they
    share the cache. Then it is read through memory maps, by index. Labels are none unless
    there are two or more and every image has one. Splits that the data set declares are used:
    `test`, or `val` without it, is held out, and all else trained on. Raises DataError when the
    source cannot be read or holds fewer than 4 readable images.
    """
    if config.source in _EMBEDDED:
        return _EMBEDDED[config.source](config)
    if cache is not None:
        return _open_any(config, cache, progress)
    with tempfile.TemporaryDirectory() as passing:  # the mapped files outlive their names
        return _open_any(config, Path(passing), progress)


def _open_digits(config: DataConfig) -> ImageSet:
    levels, labels = digits()
    identifiers = torch.tensor([identifier(str(place)) for place in range(len(levels))])
    return ImageSet(
        digest=hashlib.sha256(levels.tobytes() + labels.numpy().tobytes()).hexdigest(),
        identifiers=identifiers,
        labels=labels,
        class_names=tuple("0123456789"),
        sizes=torch.tensor(levels.shape[2:0:-1]).expand(len(levels), 2),
        skipped=(),
        parts=split(identifiers, labels, config.test_share),
        read=lambda place: portable(levels[place]),
        side=config.image_size,
    )


def _with_split(made: Crops | Scenes, class_names: tuple[str, ...], config: DataConfig) -> ImageSet:
    """An embedded set that says what is held out."""
    parts = (made.pixels, made.labels.numpy(), made.held_out.numpy())
    return ImageSet(
        digest=hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest(),
        identifiers=torch.tensor([identifier(name) for name in made.names]),
        labels=made.labels,
        class_names=class_names,
        sizes=torch.tensor(made.pixels.shape[2:0:-1]).expand(len(made.labels), 2),
        skipped=(),
        parts=((~made.held_out).nonzero()[:, 0], made.held_out.nonzero()[:, 0]),
        read=lambda place: portable(made.pixels[place]),
        side=config.image_size,
        declared=True,
    )


_EMBEDDED: Mapping[str, Callable[[DataConfig], ImageSet]] = {
    "digits": _open_digits,
    "photographs": lambda config: _with_split(photographs(), CLASS_NAMES, config),
    "photographs_equalised": lambda config: _with_split(equalised(), CLASS_NAMES, config),
    "scenes_far": lambda config: _with_split(scenes("far"), CLASSES["far"], config),
    "scenes_near": lambda config: _with_split(scenes("near"), CLASSES["near"], config),
}


def _open_any(config: DataConfig, cache: Path, progress: Progress | None) -> ImageSet:
    try:
        home = locate(config.source)
        manifest = arrow.read_manifest(home)
    except DataError as error:
        raise _hinted(config, error) from error
    if manifest is not None:
        if home.local is None:
            home = _copied(home, manifest, cache, progress)
        try:
            return _open_ingested(config, home, manifest, "ingest it again")
        except ValueError as error:
            raise DataError(f"data set {error}; delete {home.shown} and ingest it again") from error
    source = _folder(config, home)
    index = locate(str(cache)) / f"{source.fingerprint(range(len(source)))[:16]}-{arrow.VERSION}"
    remedy = f"index {config.source!r} again"
    try:
        return _open_ingested(config, index, ingest(source, index, progress), remedy)
    except ValueError:  # damaged, which costs only the time to make it again
        with locate(str(cache)).held():
            _clear_damaged(config, index)
    return _open_ingested(config, index, ingest(source, index, progress), remedy)


def _clear_damaged(config: DataConfig, index: Location) -> None:
    """Delete the index, unless another worker has, and makes it again."""
    manifest = arrow.read_manifest(index)
    if manifest is None:
        return
    try:
        _open_ingested(config, index, manifest, "")
    except ValueError:
        # Aside at once, since others look at it meanwhile.
        aside = tempfile.mkdtemp(dir=Path(index.path).parent, prefix=".damaged-")
        Path(index.path).rename(aside)
        shutil.rmtree(aside)


def _folder(config: DataConfig, home: Location) -> Folder:
    try:
        if home.local is None:
            raise DataError(f"{home.shown} holds no ingested data set")
        return Folder(config.source)
    except DataError as error:
        if home.kind() == "folder" and (home / arrow.part_name(0)).kind() == "file":
            raise DataError(
                f"{home.shown} is unfinished: run `dinolab ingest` with the same source again"
            ) from error
        raise _hinted(config, error) from error


def _hinted(config: DataConfig, error: DataError) -> DataError:
    return DataError(
        f"{error}; data.source is {EMBEDDED_NAMES}, a folder of images or what `dinolab ingest` "
        "made" + nearest(Path(config.source).name.lower(), list(EMBEDDED))
    )


def _copied(home: Location, manifest: Manifest, cache: Path, progress: Progress | None) -> Location:
    """A copy in `cache` of the data set at `home`; what an interrupted call copied is kept."""
    copy = locate(str(cache)) / f"{manifest.digest[:16]}-{arrow.VERSION}"
    if arrow.read_manifest(copy) == manifest:
        return copy
    copy.make_folder()
    sizes = {name: size for name, _, size in manifest.parts}
    rows = {name: rows for name, rows, _ in manifest.parts}
    done = 0
    with contextlib.closing(copy.claimed_in_turn(rows)) as names:
        for name in names:
            if copy.sizes().get(name) != sizes[name]:
                _copy(home / name, copy / name)
            done += rows[name]
            if progress:
                progress(done, manifest.images)
    with copy.held():
        if arrow.read_manifest(copy) != manifest:
            _copy(home / arrow.SKIPPED, copy / arrow.SKIPPED)
            arrow.write_manifest(copy, manifest)
    return copy


def _copy(source: Location, target: Location) -> None:
    try:
        with source.open() as stream, target.create() as file:
            while chunk := stream.read(2**23):
                file.write(chunk)
    except OSError as error:
        raise DataError(
            f"{source.shown} cannot be copied to {target.shown}: {reason(error)}; the same "
            "command goes on from here"
        ) from error


def _open_ingested(config: DataConfig, home: Location, manifest: Manifest, remedy: str) -> ImageSet:
    """Raises ValueError when the data set is not whole."""
    table, skipped = arrow.mapped(home, manifest), arrow.read_skipped(home)
    if len(table) < 2 * FEWEST:
        broken = ""
        if skipped:
            first = f"{printable(skipped[0].path)} ({printable(skipped[0].reason)})"
            broken = f" and {len(skipped)} broken, such as {first}"
        raise DataError(
            f"image folder {config.source!r} holds {len(table)} readable images{broken}; "
            f"{2 * FEWEST} is the fewest, {FEWEST} to train on and {FEWEST} held out"
        )
    # Images beside the labelled ones have no label, so nobody has.
    is_labelled = len(manifest.classes) > 1 and "" not in manifest.classes
    class_names, labels = (manifest.classes if is_labelled else ()), None
    if is_labelled:
        numbers = pc.index_in(table["label"], value_set=pa.array(class_names))
        labels = torch.from_numpy(numbers.to_numpy().astype(np.int64))
    identifiers = torch.from_numpy(table["id"].to_numpy().copy())
    sizes = np.stack([table[side].to_numpy() for side in ("width", "height")], axis=1)
    names, encoded = table["name"], table["image"]
    declared = _declared(table, manifest, config.source)
    return ImageSet(
        digest=manifest.digest,
        identifiers=identifiers,
        labels=labels,
        class_names=class_names,
        sizes=torch.from_numpy(sizes.astype(np.int64)),
        skipped=skipped,
        parts=declared or split(identifiers, labels, config.test_share),
        read=lambda place: encoded[place].as_buffer(),
        side=config.image_size,
        name=lambda place: printable(names[place].as_py()),
        remedy=f"delete {home.shown} and {remedy}",
        declared=declared is not None,
    )


def _declared(table: pa.Table, manifest: Manifest, source: str) -> tuple[Tensor, Tensor] | None:
    """Places to train on and held out, if the data set says so."""
    held = next((name for name in ("test", "val") if name in manifest.splits), None)
    if held is None or "train" not in manifest.splits:
        return None
    is_test = torch.from_numpy(pc.equal(table["split"], held).to_numpy().copy())
    train, test = (~is_test).nonzero()[:, 0], is_test.nonzero()[:, 0]
    if min(len(train), len(test)) < FEWEST:
        raise DataError(
            f"data set {source!r} declares {len(train)} images to train on and {len(test)} held "
            f"out; {FEWEST} of each is the fewest"
        )
    return train, test


def split(identifiers: Tensor, labels: Tensor | None, share: float) -> tuple[Tensor, Tensor]:
    """Places of training and held-out images, int64, rising.

    Held out are the first of each label in keyed order, `share` of it rounded up or down so that
    the whole comes out right (largest remainders), but at least FEWEST are on each side.
    """
    total = len(identifiers)
    held = min(max(round(share * total), FEWEST), total - FEWEST)
    order = Stream(0, "split").order(identifiers, torch.zeros_like(identifiers))
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
