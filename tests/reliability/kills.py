"""SIGKILL at the k-th change of a folder, before or after it, in whichever process makes it.

Every change of a run root comes down to a handful of calls of the operating system, which are
counted here, over all processes, in a file that is only added to. Nothing of the code under test
is used.
"""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LINE = 200
"""Bytes of a line in the log, so that the number of a change follows from where its line ends."""

CHANGES = {"link": 1, "mkdir": 0, "rename": 1, "replace": 1, "rmdir": 0, "unlink": 0}
"""Calls that change a folder, and which argument names what they change."""


def die() -> None:
    """What a kill does."""
    os.kill(os.getpid(), signal.SIGKILL)


class Kills:
    """Counts what this process changes below `root`, and calls `act` at the change `at`."""

    def __init__(
        self,
        root: Path,
        log: Path,
        at: int = 0,
        *,
        after: bool = False,
        act: Callable[[], None] = die,
        last: int = 0,
    ) -> None:
        """With `last` it is called at each change from `at` to that one; 0: at that one alone."""
        self.root, self.log, self.after, self.act = f"{os.path.realpath(root)}/", log, after, act
        self.at = range(at, max(at, last) + 1)

    def install(self) -> None:
        """From now on, until the process ends."""
        for name, act in self.calls().items():
            setattr(os, name, act)

    def calls(self) -> dict[str, Callable[..., Any]]:
        """What stands for those of `os`, by name."""
        found = {name: self._counted(name, getattr(os, name), n) for name, n in CHANGES.items()}
        return {**found, "remove": found["unlink"]}

    def _counted(self, name: str, change: Callable[..., Any], place: int) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            path = _path(arguments[place], options.get("dir_fd"))
            # When the reports of a lease come is chance.
            chance = threading.current_thread().name == "lease"
            if chance or not path.startswith(self.root) or not _changes(name, path):
                return change(*arguments, **options)
            is_it = self._note(f"{name} {path.removeprefix(self.root)}") in self.at
            if is_it and not self.after:
                self.act()
            try:
                return change(*arguments, **options)
            finally:
                if is_it and self.after:
                    self.act()

        return counted

    def _note(self, text: str) -> int:
        file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, f"{text[: _LINE - 1]:{_LINE - 1}}\n".encode("ascii", "replace"))
            return os.lseek(file, 0, os.SEEK_CUR) // _LINE
        finally:
            os.close(file)


class Told(Kills):
    """One in each process of a cluster: a JSON file says what it does, and may say otherwise later.

    It holds `root`, `log`, `at` and `after`.
    """

    def __init__(self, told: str) -> None:
        self.told = Path(told)
        super().__init__(Path("/nowhere"), Path("/nowhere"))

    def _counted(self, name: str, change: Callable[..., Any], place: int) -> Callable[..., Any]:
        counted = super()._counted(name, change, place)

        def told(*arguments: Any, **options: Any) -> Any:
            with contextlib.suppress(OSError, ValueError):
                found = json.loads(self.told.read_bytes())
                self.root, self.log, self.after = (
                    found["root"] + "/",
                    Path(found["log"]),
                    found["after"],
                )
                self.at = range(found["at"], found["at"] + 1)
            return counted(*arguments, **options)

        return told


def changes(log: Path) -> list[str]:
    """What was changed, in order."""
    if not log.exists():  # what was refused changed nothing
        return []
    return [line.rstrip() for line in log.read_text(encoding="ascii").splitlines()]


def _path(given: Any, folder: int | None) -> str:
    path = os.fsdecode(given)
    if folder is not None and not path.startswith("/"):
        path = f"{os.readlink(f'/proc/self/fd/{folder}')}/{path}"  # noqa: PTH115
    return os.path.abspath(path)  # noqa: PTH100 (a link is to be changed, not what it names)


def _changes(name: str, path: str) -> bool:
    """Whether a call can succeed: code often tries what turns out to be done already."""
    there = os.path.lexists(path)
    return there if name in ("rmdir", "unlink") else name == "replace" or not there
