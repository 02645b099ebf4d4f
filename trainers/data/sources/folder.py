"""A folder tree of image files, on this machine or on object storage."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainers.data.decode import FORMATS, SUFFIXES
from trainers.data.sources.source import Item, Skipped
from trainers.errors import DataError
from trainers.system.storage import Location, locate, printable, reason

_SPLITS = {"train", "val", "test"}
_REQUESTS = 16
"""Files asked for at once on object storage, where each takes a while to come."""


class NoImages(DataError):  # noqa: N818 (a state of the folder)
    """A folder in which no file is named like an image."""


class Folder:
    """The files under `text` that are named like images, in order of their relative path.

    Sub-folders are the labels. If all images lie in sub-folders and these are called `train`,
    `val` or `test`, those are the splits, and the next level the labels (as in ImageNet). Hidden
    files and other kinds are passed over, links are followed. Raises DataError when the folder or
    one below it cannot be read, and when no file in it is named like an image.
    """

    def __init__(self, text: str) -> None:
        self._home = locate(text)
        self.name = f"folder {self._home.local or self._home.shown}"
        files = _local_files(text, self._home) if self._home.local else _remote_files(self._home)
        if not files:
            raise NoImages(
                f"image folder {text!r} holds no images, nor do the folders in it; "
                f"give a folder of {', '.join(FORMATS)} files"
            )
        # One text for each file, not a tuple: a million files are listed.
        self._names = [name for name, _ in files]
        self._states = [state for _, state in files]
        first = {name.partition("/")[0] if "/" in name else "" for name in self._names}
        self._has_splits = first <= _SPLITS

    def __len__(self) -> int:
        return len(self._names)

    def fingerprint(self, places: range) -> str:
        """A hash of the folder's path, and of the files' names, sizes and times of change."""
        listing = hashlib.sha256(os.fsencode(self._home.path))
        listing.update(b"splits" if self._has_splits else b"labels")
        for place in places:
            listing.update(os.fsencode(self._names[place]))
            listing.update(f"\0{self._states[place]}\0".encode())
        return listing.hexdigest()

    def items(self, places: range) -> Iterator[Item | Skipped]:
        """The files' own bytes."""
        names = self._names[places.start : places.stop]
        if self._home.local:
            yield from map(self._item, names)
        else:
            with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="read") as pool:
                yield from pool.map(self._item, names)

    def _item(self, name: str) -> Item | Skipped:
        shown = os.fsencode(name).decode(errors="backslashreplace")
        if shown != name:
            return Skipped(path=shown, reason="its name is not UTF-8")
        try:
            if self._home.local:
                file = self._home.local / name
                if not file.is_file():
                    return Skipped(path=name, reason="not a file, or a link to nowhere")
                encoded = file.read_bytes()
            else:
                encoded = (self._home / name).read()
        except OSError as error:
            return Skipped(path=name, reason=f"cannot be read: {reason(error)}")
        split = ""
        rest = name
        if self._has_splits:
            split, _, rest = name.partition("/")
        label, slash, _ = rest.partition("/")
        return Item(name=name, label=label if slash else "", split=split, image=encoded)


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _local_files(text: str, home: Location) -> list[tuple[str, str]]:
    """Relative posix paths of the files named like images, sorted, and their size and time."""

    def fail(error: OSError) -> None:
        place = text if error.filename == folder else error.filename
        raise DataError(f"image folder {place!r} cannot be read: {error.strerror}")

    folder = home.path
    found = []
    for parent, inside, names in os.walk(folder, onerror=fail, followlinks=True):
        inside[:] = [
            name
            for name in inside
            if not name.startswith(".") and not _turns_back(Path(parent, name))
        ]
        start = parent[len(folder) :].strip("/")
        found += [
            f"{start}/{name}" if start else name
            for name in names
            if not name.startswith(".") and _is_image(name)
        ]
    try:
        return [(name, _state(Path(folder, name))) for name in sorted(found)]
    except OSError as error:
        raise DataError(f"image folder {text!r} cannot be read: {error}") from error


def _turns_back(folder: Path) -> bool:
    """Whether `folder` is a link to a folder on the way to it."""
    if not folder.is_symlink():
        return False
    return folder.resolve() in (parent.resolve() for parent in folder.absolute().parents)


def _state(file: Path) -> str:
    try:
        status = file.stat()
    except OSError:  # a link that leads nowhere
        status = file.lstat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _remote_files(home: Location) -> list[tuple[str, str]]:
    if home.kind() != "folder":
        raise DataError(f"image folder {printable(home.shown)!r} cannot be read: no such folder")
    return [
        (name, f"{size} {time}")
        for name, size, time in home.files()
        if _is_image(name) and not any(part.startswith(".") for part in name.split("/"))
    ]
