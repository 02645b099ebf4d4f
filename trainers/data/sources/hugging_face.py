"""Data sets of the Hugging Face hub, through the optional library `datasets`."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainers.data.sources.source import Item, Skipped, split_called
from trainers.errors import DataError, printable, reason


class HuggingFaceSet:
    """All splits of the data set `name` (and its configuration), images as stored.

    Needs one column of images; labels are its first column of class labels, if any. Raises
    DataError when `datasets` is not installed, when the data set cannot be had, and when it has no
    such column.
    """

    def __init__(self, name: str, configuration: str | None) -> None:
        self.name = f"hf:{name}" + (f":{configuration}" if configuration else "")
        shown = printable(self.name)
        try:
            import datasets
        except ImportError as error:
            raise DataError(
                f"{shown} needs the library `datasets`: pip install 'dinolab[ingest]', or give "
                "the data set's parquet files"
            ) from error
        try:
            splits = datasets.load_dataset(name, configuration)
        except Exception as error:  # the hub, the network, the data set's own faults
            raise DataError(
                f"{shown} cannot be had ({reason(error)}): check the name and the network, or "
                "give the data set's parquet files"
            ) from error
        self._splits: list[tuple[str, Any]] = []
        self._starts = [0]
        for split, found in splits.items():
            images = [
                column
                for column, feature in found.features.items()
                if isinstance(feature, datasets.Image)
            ]
            if len(images) != 1:
                raise DataError(
                    f"{shown} has {len(images)} columns of images (columns: "
                    f"{', '.join(found.features)}): one is needed"
                )
            self._image = images[0]
            labels = [
                column
                for column, feature in found.features.items()
                if isinstance(feature, datasets.ClassLabel)
            ]
            self._label = labels[0] if labels else None
            self._classes = found.features[self._label].names if labels else []
            found = found.cast_column(self._image, datasets.Image(decode=False))
            kept = [self._image, *labels[:1]]
            self._splits.append((split, found.select_columns(kept)))
            self._starts.append(self._starts[-1] + len(found))

    def __len__(self) -> int:
        return self._starts[-1]

    def fingerprint(self, places: range) -> str:
        """A hash of what `datasets` calls the data's own fingerprint, and of the places."""
        words = [f"{split} {found._fingerprint}" for split, found in self._splits]
        text = "\0".join([*words, f"{places.start} {places.stop}"])
        return hashlib.sha256(text.encode()).hexdigest()

    def items(self, places: range) -> Iterator[Item | Skipped]:
        """The encoded images, called by split and place."""
        for (split, found), start in zip(self._splits, self._starts, strict=False):
            stop = start + len(found)
            for place in range(max(places.start, start) - start, min(places.stop, stop) - start):
                yield self._item(f"{split}/{place:06d}", split, found[place])

    def _item(self, name: str, split: str, row: dict[str, Any]) -> Item | Skipped:
        image = row[self._image] or {}
        encoded = image.get("bytes")
        if encoded is None and image.get("path"):
            try:
                encoded = Path(image["path"]).read_bytes()
            except OSError as error:
                return Skipped(path=name, reason=f"cannot be read: {reason(error)}")
        if encoded is None:
            return Skipped(path=name, reason="no bytes in this row")
        label = ""
        if self._label:
            number = row[self._label]
            label = self._classes[number] if number is not None and number >= 0 else ""
        return Item(name=name, label=label, split=split_called(split), image=encoded)
