"""A store that stops at a chosen operation, or whose lists are late: for tests of what uses one."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from trainers.errors import StoreError
from trainers.system.store import Entry, Store

WRITES = {"put", "put_file", "delete"}
OPERATIONS = WRITES | {"get", "get_file", "names", "list"}
T = TypeVar("T")


class StoppedError(BaseException):
    """The process was killed, as seen by a test in the same process; nothing catches it."""


def stop() -> None:
    """Raise StoppedError."""
    raise StoppedError


class Injecting:
    """`store`; at the `at`-th operation (from 1) of kind `of` it calls `act`, before or `after` it.

    `act` raises, or ends the process; once it has, so does every operation after it. `operations`
    has every one, such as `put a/b`, in order, but for those of leases: when they come is chance.
    After `freeze`, lists and names are those of that time, as object storage may answer; what is
    got is of now.
    """

    def __init__(
        self,
        store: Store,
        *,
        at: int | None = None,
        after: bool = False,
        of: frozenset[str] | set[str] = frozenset(WRITES),
        act: Callable[[], None] = stop,
    ) -> None:
        self.store = store
        self.shown = store.shown
        self.local: Path | None = store.local
        self.operations: list[str] = []
        self.at, self.after, self.of, self.act = at, after, of, act
        self._frozen: list[str] | None = None
        self._is_stopped = False

    def count(self) -> int:
        """How many operations of kind `of` there have been."""
        return sum(one.partition(" ")[0] in self.of for one in self.operations)

    def freeze(self) -> None:
        """From now on, name nothing that is not there now."""
        self._frozen = [one.key for one in self.store.list()]

    def thaw(self) -> None:
        """Name what is there."""
        self._frozen = None

    def get(self, key: str) -> bytes | None:
        return self._done("get", key, lambda: self.store.get(key))

    def names(self, prefix: str = "") -> list[str]:
        if self._frozen is None:
            return self._done("names", prefix, lambda: self.store.names(prefix))
        start = f"{prefix}/" if prefix else ""
        found = {key[len(start) :].split("/")[0] for key in self._frozen if key.startswith(start)}
        return self._done("names", prefix, lambda: sorted(found))

    def put(self, key: str, content: bytes, *, if_absent: bool = False) -> bool:
        return self._done("put", key, lambda: self.store.put(key, content, if_absent=if_absent))

    def put_file(self, key: str, path: Path) -> None:
        self._done("put_file", key, lambda: self.store.put_file(key, path))

    def get_file(self, key: str, path: Path) -> bool:
        return self._done("get_file", key, lambda: self.store.get_file(key, path))

    def delete(self, key: str) -> None:
        self._done("delete", key, lambda: self.store.delete(key))

    def _done(self, kind: str, key: str, do: Callable[[], T]) -> T:
        if threading.current_thread().name == "lease":
            if self._is_stopped:
                raise StoreError("a process that was killed beats no more")
            return do()
        if self._is_stopped:
            self.act()
        self.operations.append(f"{kind} {key}")
        self._is_stopped = kind in self.of and self.count() == self.at
        if self._is_stopped and not self.after:
            self.act()
        done = do()
        if self._is_stopped and self.after:
            self.act()
        return done

    # The last one: behind it, `list` is this method.
    def list(self, prefix: str = "") -> list[Entry]:
        found = self._done("list", prefix, lambda: self.store.list(prefix))
        return [one for one in found if self._frozen is None or one.key in self._frozen]
