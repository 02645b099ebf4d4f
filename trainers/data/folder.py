"""A folder tree of image files, indexed once into an Arrow file."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from trainers.config import nearest
from trainers.data import arrow
from trainers.data.arrow import Entry, Skipped
from trainers.data.decode import FORMATS, SUFFIXES, UnreadableImage, decode
from trainers.errors import DataError

Progress = Callable[[int, int], None]


def index(
    source: str, cache: Path, progress: Progress | None
) -> tuple[pa.Table, str, tuple[Skipped, ...]]:
    """The indexed images of the folder `source`, from `cache` if they are as they were then.

    They count as the same while their paths, sizes and times of change are. Files are taken in
    order of their relative path; hidden ones and other kinds are passed over, links are followed.
    Every image is decoded once: a broken one is skipped, with the reason. `progress` is called
    with images done and all. Raises DataError when the folder or one below it cannot be read, when
    no file in it is named like an image, and when the index cannot be written.
    """
    # A text, not a Path: the empty Path is the current folder. An unknown `~name` stays as it is.
    folder = os.path.expanduser(source)  # noqa: PTH111
    files = _image_files(folder)
    if not files:
        raise DataError(
            f"image folder {folder!r} holds no images, nor do the folders in it; "
            f"give a folder of {', '.join(FORMATS)} files"
        )
    try:
        path = cache / f"{_fingerprint(folder, files)}.arrow"
    except OSError as error:
        raise DataError(f"image folder {folder!r} cannot be read: {error}") from error
    try:
        return arrow.read(path)
    except (OSError, ValueError):
        pass
    try:
        arrow.write(path, _entries(folder, files, progress))
    except OSError as error:
        raise DataError(
            f"the index of image folder {folder!r} cannot be written to {cache}: {error}; "
            "it needs the space of all images"
        ) from error
    return arrow.read(path)


def _image_files(folder: str) -> list[str]:
    """Relative posix paths of the files named like images, sorted."""

    def fail(error: OSError) -> None:
        raise DataError(
            f"image folder {error.filename!r} cannot be read: {error.strerror}; "
            "data.source is `digits` or the path of a folder of images"
            + nearest(folder.lower(), ["digits"])
        )

    found = []
    for parent, inside, names in os.walk(folder, onerror=fail, followlinks=True):
        here = Path(parent)
        inside[:] = [
            name for name in inside if not name.startswith(".") and not _turns_back(here / name)
        ]
        found += [
            (here / name).relative_to(folder).as_posix()
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)


def _turns_back(folder: Path) -> bool:
    """Whether `folder` is a link to a folder on the way to it."""
    way = (parent.resolve() for parent in folder.absolute().parents)
    return folder.is_symlink() and folder.resolve() in way


def _fingerprint(folder: str, files: list[str]) -> str:
    listing = hashlib.sha256(os.fsencode(Path(folder).resolve()))
    for relative in files:
        file = Path(folder, relative)
        try:
            status = file.stat()
        except OSError:  # a link that leads nowhere
            status = file.lstat()
        listing.update(os.fsencode(relative))
        listing.update(f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return listing.hexdigest()[:16]


def _entries(folder: str, files: list[str], progress: Progress | None) -> Iterator[Entry | Skipped]:
    for done, relative in enumerate(files, start=1):
        yield _entry(folder, relative)
        if progress:
            progress(done, len(files))


def _entry(folder: str, relative: str) -> Entry | Skipped:
    shown = os.fsencode(relative).decode(errors="backslashreplace")
    if shown != relative:
        return Skipped(path=shown, reason="its name is not UTF-8")
    file = Path(folder, relative)
    try:
        if not file.is_file():
            return Skipped(path=relative, reason="not a file, or a link to nowhere")
        encoded = file.read_bytes()
        width, height = decode(encoded).size
    except OSError as error:
        return Skipped(path=relative, reason=f"cannot be read: {error.strerror}")
    except UnreadableImage as error:
        return Skipped(path=relative, reason=str(error))
    first, slash, _ = relative.partition("/")
    label = first if slash else ""
    return Entry(path=relative, label=label, width=width, height=height, image=encoded)
