"""A folder tree of image files, on this machine or on object storage."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainers.data.decode import FORMATS, OTHER_SUFFIXES, SUFFIXES
from trainers.data.sources.layout import Layout, layout
from trainers.data.sources.source import Item, Skipped, is_leftover
from trainers.errors import DataError, printable, reason
from trainers.system.storage import Location, locate

_REQUESTS = 16
"""Files asked for at once on object storage, where each takes a while to come."""


class NoImages(DataError):  # noqa: N818 (a state of the folder)
    """A folder in which no file is named like an image that can be read."""


class Folder:
    """The files under `text` that are named like images, in order of their relative path.

    Sub-folders are the splits and labels, as `layout` tells. Hidden files, what systems leave
    behind and other kinds are passed over, links are followed. Pictures that cannot be read, and
    those beside the splits, are skipped with the reason. Raises DataError when the folder or one
    below it cannot be read, when only some of its folders are splits, and when no file in it is
    named like an image that can be read.
    """

    def __init__(self, text: str) -> None:
        self._home = locate(text)
        self.name = f"folder {self._home.local or self._home.shown}"
        files = _local_files(text, self._home) if self._home.local else _remote_files(self._home)
        # One text for each file, not a tuple: a million files are listed.
        self._names = [name for name, _ in files]
        self._states = [state for _, state in files]
        folders = {_folder(name) for name in self._names if _suffix(name) in SUFFIXES}
        if not folders:
            raise NoImages(_nothing_in(text, self._names))
        self._layout = layout(folders, text)
        self._spelled = _spelled(self._layout)

    def __len__(self) -> int:
        return len(self._names)

    def fingerprint(self, places: range) -> str:
        """A hash of the folder's path, and of the files' names, sizes and times of change."""
        listing = hashlib.sha256(os.fsencode(self._home.path))
        listing.update(self._spelled)
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
        if (suffix := _suffix(name)) not in SUFFIXES:
            return Skipped(
                path=name, reason=f"{_kind(suffix)} is not read: convert it to JPEG or PNG"
            )
        place = self._layout[_folder(name)]
        if place is None:
            return Skipped(path=name, reason="lies beside the splits, in none of them")
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
        split, label = place
        return Item(name=name, label=label, split=split, image=encoded)


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _kind(suffix: str) -> str:
    return suffix[1:].upper()


def _is_picture(name: str) -> bool:
    return _suffix(name) in SUFFIXES or _suffix(name) in OTHER_SUFFIXES


def _nothing_in(text: str, names: list[str]) -> str:
    if not names:
        return (
            f"image folder {text!r} holds no images, nor do the folders in it; "
            f"give a folder of {', '.join(FORMATS)} files"
        )
    kinds = Counter(_kind(_suffix(name)) for name in names)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return (
        f"image folder {text!r} holds no images that can be read ({counts}; the first is "
        f"{printable(names[0])}): convert them to JPEG or PNG"
    )


def _spelled(layout: Layout) -> bytes:
    """What tells layouts apart, for the fingerprint; the two simplest have a word each."""
    first = {one: tuple(f"{one}/".split("/")[:2]) for one in layout}
    if all(place == ("", first[one][0]) for one, place in layout.items()):
        return b"labels"
    if layout == first:
        return b"splits"
    return repr(sorted(layout.items())).encode()


def _local_files(text: str, home: Location) -> list[tuple[str, str]]:
    """Relative posix paths of the files named like images, sorted, and their size and time."""

    def fail(error: OSError) -> None:
        place = text if error.filename == folder else error.filename
        raise DataError(f"image folder {place!r} cannot be read: {error.strerror}")

    folder = home.path
    found = []
    for parent, inside, names in os.walk(folder, onerror=fail, followlinks=True):
        inside[:] = [
            name for name in inside if not is_leftover(name) and not _turns_back(Path(parent, name))
        ]
        start = parent[len(folder) :].strip("/")
        found += [
            f"{start}/{name}" if start else name
            for name in names
            if not is_leftover(name) and _is_picture(name)
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
        if _is_picture(name) and not any(map(is_leftover, name.split("/")))
    ]
