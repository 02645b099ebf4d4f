"""A run root as objects: got, listed, put whole, and put only where nobody was first.

Everything that is decided in a run root is decided by a put if absent, which local folders and
object storage both have; so there are no locks, and nothing to clean up after a kill.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from trainers.errors import RootError, StoreError, printable, reason
from trainers.system import atomic
from trainers.system.keys import Entry as Entry
from trainers.system.keys import checked

OBJECT_STORAGE = ("s3", "gs", "az")
TRIES = 20
"""for a put among others that delete"""

AT_ONCE = 8
"""Trials that are looked up at once: object storage, and a folder of a network, let each wait."""


class Store(Protocol):
    """Objects by key; a key is names with `/` between. Every method raises StoreError, one line."""

    shown: str
    """where it is, without user, password or options"""
    local: Path | None
    """the folder on this machine; None on object storage"""

    def get(self, key: str) -> bytes | None:
        """The whole object, or None where there is none."""

    def names(self, prefix: str = "") -> list[str]:
        """The names directly below `prefix`, of objects and of what lies deeper; sorted."""

    def put(self, key: str, content: bytes, *, if_absent: bool = False) -> bool:
        """Make the object whole and lasting. False only when, `if_absent`, one was there."""

    def put_file(self, key: str, path: Path) -> None:
        """The same of a file, which may be large."""

    def get_file(self, key: str, path: Path) -> bool:
        """Write the object to `path`, whole or not at all. False where there is none."""

    def delete(self, key: str) -> None:
        """Delete the object, if it is there."""

    # The last one: behind it, `list` is this method.
    def list(self, prefix: str = "") -> list[Entry]:
        """Every object below `prefix`, at any depth, sorted by key."""


def open_store(root: str | Path, *, make: bool = False) -> Store:
    """The store at `root`, a path or an s3://, gs:// or az:// address.

    With `make` a folder is made if need be, and must be one that can be written. Raises RootError,
    one line, when the root is not there or cannot be used.
    """
    text = os.fspath(root)
    scheme, found, rest = text.partition("://")
    if not found or scheme == "file":
        # A Path raises for ~name of nobody.
        folder = Path(rest) if found else Path(os.path.expanduser(text))  # noqa: PTH111
        return LocalStore(folder, make=make)
    scheme = scheme.lower()
    if scheme not in OBJECT_STORAGE:
        raise RootError(
            f"a run root cannot lie at {printable(scheme)}://: give a path, file://, "
            f"{', '.join(f'{one}://' for one in OBJECT_STORAGE)}"
        )
    try:
        from trainers.system.object_store import open_object_store
    except ImportError:
        raise RootError(
            f"a run root at {scheme}:// needs obstore: pip install 'dinolab[storage]'"
        ) from None
    return open_object_store(f"{scheme}://{rest}", make=make)


def refuse_gone(root: Path) -> None:
    """Raises StoreError, one line, when a run root that was there is not.

    Of a mount that has gone away, what lies below the mount point must not be written to.
    """
    if not root.is_dir():
        raise StoreError(
            f"run root {printable(str(root))} is gone: bring it back (a mount?), and run the same "
            "command again"
        )


class LocalStore:
    """A folder, on a disk or a mount that machines share. Files that begin with `.` do not count.

    With `make` it is made if need be, and must be one that can be written. Raises RootError, one
    line, when it is not there or cannot be used.
    """

    def __init__(self, root: Path, *, make: bool = False) -> None:
        self.root = root.absolute()
        self.local: Path | None = self.root
        self.shown = printable(str(root))
        if not make:
            # Those of os.path say False of what cannot be asked for, where Path's raise.
            is_folder = os.path.isdir(root)  # noqa: PTH112
            if os.path.exists(root) and not is_folder:  # noqa: PTH110
                raise RootError(f"run root {self.shown} is no folder: give another --root")
            if not is_folder:
                raise RootError(
                    f"run root {self.shown} is not there: give another --root, or run a study first"
                )
            return
        try:
            root.mkdir(parents=True, exist_ok=True)
            with atomic.scratch_file(root):
                pass
        except OSError as error:
            raise RootError(
                f"run root {self.shown} cannot be written ({reason(error)}); choose another with "
                "--root"
            ) from error

    def get(self, key: str) -> bytes | None:
        """See Store."""
        path = self._path(key)
        with self._explained(key, "read"):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                refuse_gone(self.root)
                return None

    def names(self, prefix: str = "") -> list[str]:
        """See Store."""
        with self._explained(prefix, "listed"):
            try:
                found = [
                    one.name for one in (self._path(prefix) if prefix else self.root).iterdir()
                ]
            except (FileNotFoundError, NotADirectoryError):
                refuse_gone(self.root)
                return []
        return sorted(name for name in found if not name.startswith("."))

    def put(self, key: str, content: bytes, *, if_absent: bool = False) -> bool:
        """See Store."""
        path = self._path(key)
        with self._explained(key, "written"):
            if if_absent and path.exists():
                return False
            try:
                with self._replacing(path, if_absent=if_absent) as written:
                    written.write_bytes(content)
            except FileExistsError:
                return False
        return True

    def put_file(self, key: str, path: Path) -> None:
        """See Store."""
        own = self._path(key)
        if own == path.absolute():
            return
        with self._explained(key, "written"), self._replacing(own) as written:
            shutil.copyfile(path, written)

    def get_file(self, key: str, path: Path) -> bool:
        """See Store."""
        own = self._path(key)
        with self._explained(key, "read"):
            if not own.is_file():
                refuse_gone(self.root)
                return False
            if own != path.absolute():
                with atomic.replacing_by_name(path) as written:
                    shutil.copyfile(own, written)
        return True

    def delete(self, key: str) -> None:
        """See Store."""
        path = self._path(key)
        with self._explained(key, "deleted"):
            path.unlink(missing_ok=True)
            self._drop_empty(path.parent)

    def _drop_empty(self, folder: Path) -> None:
        """Delete folders that hold nothing: no object has them in its key."""
        # Others may still be putting something there.
        for one in (folder, *folder.parents):
            if one == self.root:
                break
            try:
                one.rmdir()
            except OSError:
                break

    def _path(self, key: str) -> Path:
        checked(key)
        return self.root.joinpath(*key.split("/"))

    @contextlib.contextmanager
    def _replacing(self, path: Path, *, if_absent: bool = False) -> Iterator[Path]:
        """As `atomic.replacing_by_name`; the folders are made if need be."""
        try:
            with contextlib.ExitStack() as stack:
                for tries_left in reversed(range(TRIES)):
                    # Whoever deletes the last file of a folder deletes the folder too.
                    try:
                        self._make_folders(path.parent)
                        replacing = atomic.replacing_by_name(path, if_absent=if_absent)
                        written = stack.enter_context(replacing)
                        break
                    except FileNotFoundError:
                        if not tries_left:
                            raise
                yield written
        except OSError:
            # The folder of an attempt without a lease would be taken for somebody's attempt.
            self._drop_empty(path.parent)
            raise

    def _make_folders(self, folder: Path) -> None:
        """Make the folders between the root and `folder`, and make them last."""
        if folder.is_dir():
            return
        refuse_gone(self.root)
        missing = [one for one in (folder, *folder.parents) if not one.is_dir()]
        for one in reversed(missing):
            one.mkdir(exist_ok=True)
            atomic.sync(one.parent)

    @contextlib.contextmanager
    def _explained(self, key: str, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            refuse_gone(self.root)
            raise StoreError(
                f"{self.shown}/{key} cannot be {what} ({reason(error)}); mend that, and run the "
                "same command again"
            ) from error

    def list(self, prefix: str = "") -> list[Entry]:
        """See Store."""
        start = self._path(prefix) if prefix else self.root
        entries = []
        with self._explained(prefix, "listed"):
            refuse_gone(self.root)
            for folder, folders, files in os.walk(start, onerror=_unless_missing):
                folders[:] = [name for name in folders if not name.startswith(".")]
                for name in files:
                    if not name.startswith("."):
                        path = Path(folder, name)
                        with contextlib.suppress(FileNotFoundError):
                            found = path.stat()
                            key = path.relative_to(self.root).as_posix()
                            entries.append(Entry(key, found.st_size, found.st_mtime))
        return sorted(entries, key=lambda entry: entry.key)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
