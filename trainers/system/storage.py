"""Folders of files, local or on object storage, behind one small interface.

A location is a local path, or a URI that pyarrow.fs understands (`s3://`, `gs://`, `file://`).
Local files appear whole (written beside, synced, renamed) and are memory-mapped for reading. An
object appears when its upload ends; what reads it must be able to tell that it is whole, as the
footer of an Arrow or parquet file does.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pyarrow as pa
from pyarrow import fs

from trainers.config.data import EMBEDDED
from trainers.errors import DataError, printable, reason
from trainers.system.atomic import replacing


@dataclass(frozen=True, kw_only=True)
class Location:
    """A file or folder: `path` on `filesystem`; `shown` names it without user, key or options."""

    filesystem: Any
    path: str
    shown: str

    @property
    def local(self) -> Path | None:
        """The path on this machine, or None on object storage."""
        is_local = isinstance(self.filesystem, fs.LocalFileSystem)
        return Path(self.path) if is_local else None

    def __truediv__(self, name: str) -> "Location":
        return Location(
            filesystem=self.filesystem,
            path=f"{self.path.rstrip('/')}/{name}",
            shown=f"{self.shown.rstrip('/')}/{name}",
        )

    def kind(self) -> str:
        """`file`, `folder` or `nothing`. Raises DataError when that cannot be told."""
        with _explained(self, "cannot be reached"):
            found = self.filesystem.get_file_info(self.path).type
        return {fs.FileType.File: "file", fs.FileType.Directory: "folder"}.get(found, "nothing")

    def files(self) -> list[tuple[str, int, int]]:
        """Name, size and time of change (ns) of every file at any depth, sorted by name.

        Names are relative, with `/`. Empty when there is no such folder. Raises DataError.
        """
        return sorted(
            (name, one.size, one.mtime_ns or 0)
            for name, one in self._listed(deep=True)
            if one.type == fs.FileType.File
        )

    def sizes(self) -> dict[str, int]:
        """What lies in the folder itself, by name: the size of a file, -1 for a folder.

        Raises DataError.
        """
        return {
            name: one.size if one.type == fs.FileType.File else -1
            for name, one in self._listed(deep=False)
        }

    def _listed(self, *, deep: bool) -> list[tuple[str, Any]]:
        selector = fs.FileSelector(self.path, recursive=deep, allow_not_found=True)
        with _explained(self, "cannot be listed"):
            found = self.filesystem.get_file_info(selector)
        start = len(self.path.rstrip("/")) + 1
        return [(one.path[start:], one) for one in found]

    def read(self) -> bytes:
        """All bytes of the file. Raises OSError."""
        with self.filesystem.open_input_file(self.path) as file:
            return bytes(file.read())

    def open(self) -> Any:
        """The file for reading at any place: mapped when local. Raises OSError."""
        if self.local:
            return pa.memory_map(self.path)
        return self.filesystem.open_input_file(self.path)

    def make_folder(self) -> None:
        """Make the folder and those above it. Raises DataError when that cannot be."""
        if self.local:
            with _explained(self, "cannot be written"):
                self.local.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def create(self) -> Iterator[Any]:
        """A stream of the file to be written; after an exception a local file is as it was."""
        if self.local is None:
            with self.filesystem.open_output_stream(self.path) as stream:
                yield stream
            return
        with replacing(self.local) as file:
            yield pa.PythonFile(file)

    def delete(self) -> None:
        """Delete the file, unless somebody else has. Raises DataError."""
        with _explained(self, "cannot be deleted"), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold a local folder; another process that wants it waits. Object storage has no locks.

        Raises DataError.
        """
        if self.local is None:
            yield
            return
        with _explained(self, "cannot be used"):
            descriptor = os.open(self.local, os.O_RDONLY)
        try:
            _lock(descriptor, wait=True)
            yield
        finally:
            os.close(descriptor)

    def claimed_in_turn(self, names: Iterable[str]) -> Generator[str]:
        """Each file name of the folder once, while this process alone may make that file.

        First those that nobody else is at, then the others, as soon as whoever claimed them has let
        go. A claim ends with its process, so that what a killed one has begun is made by another.
        Where a file system or object storage has no locks, all may make all. Raises DataError.
        """
        later = []
        for name in names:
            with (self / name)._claimed(wait=False) as is_ours:
                if is_ours:
                    yield name
                else:
                    later.append(name)
        for name in later:
            with (self / name)._claimed(wait=True):
                yield name

    @contextlib.contextmanager
    def _claimed(self, *, wait: bool) -> Iterator[bool]:
        if self.local is None:
            yield True
            return
        claim = self.local.with_name(f".{self.local.name}.claim")
        while True:
            with _explained(self, "cannot be written"):
                descriptor = os.open(claim, os.O_CREAT | os.O_RDWR, 0o644)
            try:
                if not _lock(descriptor, wait=wait):
                    yield False
                    return
                # Whoever held it may have deleted it meanwhile, and another have made a new one.
                if not _is_at(claim, descriptor):
                    continue
                try:
                    yield True
                finally:
                    claim.unlink(missing_ok=True)
                return
            finally:
                os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Whether nobody else has locked it; also where the file system, on a network, has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def is_uri(text: str) -> bool:
    """Whether `text` is a URI and not a local path."""
    scheme, found, _ = text.partition("://")
    return bool(found) and scheme.isalnum()


def absolute_source(text: str) -> str:
    """`text`, as a user gives data, so that it means the same from any folder and machine.

    A path, or a pattern of paths, becomes absolute, with `~` as home. Anything else stays as it
    is: a URI, a name in EMBEDDED, `torchvision:…`, `hf:…`, and what can be no path.
    """
    kind, colon, _ = text.partition(":")
    is_named = text in EMBEDDED or (colon and kind in ("torchvision", "hf"))
    return text if is_named or is_uri(text) or not _can_be_path(text) else _absolute(text)


def _absolute(text: str) -> str:
    # A text, not a Path: the empty Path is the current folder. Unknown `~name` stays.
    return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111


def is_there(text: str) -> bool:
    """Whether `text` names a file or folder that can be reached."""
    try:
        return locate(text).kind() != "nothing"
    except DataError:
        return False


def _refuse_credentials(text: str) -> None:
    """Raises DataError where `text` is a URI with a user or a password: run roots would keep it."""
    scheme, found, given = text.partition("://")
    authority = re.split("[/?#]", given)[0]
    # A secret may hold a slash: what stands before the last @ is never shown.
    has_secret = "@" in authority or (":" in authority and "@" in given)
    if found and has_secret and authority.rpartition("@")[0] != "anonymous":
        shown = printable(f"{scheme}://{re.split('[?#]', given.rpartition('@')[2])[0]}")
        needed = _CREDENTIALS.get(scheme, "what it needs")
        raise DataError(
            f"{shown} was given with a user or a password, which would stand in run roots and "
            f"logs: give the address alone, and set {needed} in the environment"
        )


_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
}


def locate(text: str) -> Location:
    """The location that `text` names; it need not exist. Raises DataError."""
    _refuse_credentials(text)
    if not _can_be_path(text):
        raise DataError(f"{text!r} can be no path: give a folder, a file or a URI such as s3://…")
    if not is_uri(text):
        path = _absolute(text)
        return Location(filesystem=fs.LocalFileSystem(), path=path, shown=printable(text))
    parts = urlsplit(text)
    shown = printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")
    try:
        # Brackets and spaces as people write them; what is escaped already stays so.
        escaped = parts._replace(path=quote(parts.path, safe="/%:@!$&'()*+,;=~")).geturl()
        filesystem, path = fs.FileSystem.from_uri(escaped)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{shown} cannot be used: {reason(error)}; allowed are local paths, file://, s3:// "
            "and gs:// URIs"
        ) from error
    return Location(filesystem=filesystem, path=path, shown=shown)


def _can_be_path(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return bool(text) and "\0" not in text


@contextlib.contextmanager
def _explained(location: Location, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise DataError(f"{location.shown} {what}: {reason(error)}") from error
