"""A folder tree of image files, indexed once into an Arrow file."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from PIL import Image

from trainers.data import arrow
from trainers.data.arrow import Entry, Skipped
from trainers.data.decode import UnreadableImage, decode
from trainers.errors import DataError

Progress = Callable[[int, int], None]


def index(
    folder: Path, cache: Path, progress: Progress
) -> tuple[pa.Table, str, tuple[Skipped, ...]]:
    """The indexed images of `folder`, from `cache` if they are as they were then.

    Files are taken in order of their relative path; hidden ones and other kinds are passed over.
    Every image is decoded once: a broken one is skipped, with the reason. `progress` is called
    with images done and all. Raises DataError when there is no folder or no image in it.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"image folder {folder} {what}; give `digits` or a folder of images")
    files = _image_files(folder)
    if not files:
        raise DataError(
            f"image folder {folder} holds no images (looked for {_SHOWN} in it and below)"
        )
    listing = hashlib.sha256(str(folder.resolve()).encode())
    for file in files:
        status = file.stat()
        listing.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    path = cache / f"{listing.hexdigest()[:16]}.arrow"
    try:
        return arrow.read(path)
    except (OSError, ValueError):
        arrow.write(path, _entries(folder, files, progress))
    table, digest, skipped = arrow.read(path)
    if not len(table):
        first = skipped[0]
        raise DataError(
            f"image folder {folder}: all {len(skipped)} images are unreadable "
            f"(first: {first.path}: {first.reason})"
        )
    return table, digest, skipped


_SHOWN = "png, jpg, webp, gif, bmp, tif, …"


def _image_files(folder: Path) -> list[Path]:
    Image.init()
    readable = {suffix for suffix, name in Image.EXTENSION.items() if name in Image.OPEN}
    readable -= {".pdf", ".eps", ".ps", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr", ".fits"}
    found = []
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.suffix.lower() in readable and path.is_file():
            found.append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _entries(folder: Path, files: list[Path], progress: Progress) -> Iterator[Entry | Skipped]:
    for done, file in enumerate(files, start=1):
        relative = file.relative_to(folder)
        try:
            encoded = file.read_bytes()
            width, height = decode(encoded).size
            yield Entry(
                path=relative.as_posix(),
                label=relative.parts[0] if len(relative.parts) > 1 else "",
                width=width,
                height=height,
                image=encoded,
            )
        except OSError as error:
            yield Skipped(path=relative.as_posix(), reason=f"cannot be read: {error.strerror}")
        except UnreadableImage as error:
            yield Skipped(path=relative.as_posix(), reason=str(error))
        progress(done, len(files))
