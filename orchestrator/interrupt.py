"""Ctrl-C and SIGTERM end a command within seconds, wherever they arrive.

A KeyboardInterrupt that is raised inside a library may be lost in it (a destructor, a callback from
compiled code). So a signal is also remembered, and asked for at places that nothing swallows. And
compiled code that runs for long (Ray starting, a large library being loaded) keeps Python's handler
from being called at all: a thread gives the command a few seconds, and then ends the process.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn

LEAVE_WITHIN_S = 4.0
"""Seconds that a command has to end in good order."""

INTERRUPTED = 130
"""Exit code."""

_SIGACTION_BYTES = 1024
"""More than the system's `struct sigaction` has (Linux: 152)."""

_requested = threading.Event()
_told = threading.Event()
"""once the command has said that it was interrupted"""
_ending = threading.Event()
"""once the thread ends the process, which it says itself"""
_before_leaving: list[Callable[[], object]] = []
_in_their_own_time: set[int] = set()
_command: list[str] = []
"""of this process, where that is all there is to it"""
_pipe: list[int] = []
"""the end of a pipe that the system writes signals to, once there is one"""


def listen() -> None:
    """Handle SIGINT and SIGTERM here; again after a library has put in handlers of its own.

    `ray job stop` and most schedulers end a driver by SIGTERM: it is treated like Ctrl-C.
    """
    signal.signal(signal.SIGINT, _remember)
    signal.signal(signal.SIGTERM, _remember)
    if not _pipe:
        read, write = os.pipe()
        os.set_blocking(write, False)
        _pipe.append(write)
        threading.Thread(target=_watch, args=(read,), daemon=True).start()
    # The system's own handler writes to it, whatever Python is at.
    signal.set_wakeup_fd(_pipe[0], warn_on_full_buffer=False)


def be_a_command() -> None:
    """This process is one command and no more: it could be started again in its place."""
    _command[:] = sys.orig_argv


def command() -> list[str]:
    """The arguments that this process was started with; none unless it is a command."""
    return list(_command)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """After the block signals are handled as before it, whatever compiled code has put in.

    In any thread: Python's own functions do that in the main one alone.
    """
    system = ctypes.CDLL(None)
    before = {
        one: ctypes.create_string_buffer(_SIGACTION_BYTES)
        for one in (signal.SIGINT, signal.SIGTERM)
    }
    for one, action in before.items():
        system.sigaction(one, None, action)
    try:
        yield
    finally:
        for one, action in before.items():
            system.sigaction(one, action, None)


def give_time(to: signal.Signals) -> None:
    """Let a command that heeds this signal itself end when it has done what it has to."""
    _in_their_own_time.add(to)


def check() -> None:
    """Raise KeyboardInterrupt if a signal has come."""
    if _requested.is_set():
        raise KeyboardInterrupt


def requested() -> bool:
    """Whether a signal has come."""
    return _requested.is_set()


def tell(line: str, say: Callable[[str], object] | None = None) -> None:
    """Say, on standard error or by `say`, that the command was interrupted and how it stands.

    A command says it once, however long the rest takes and however often it is interrupted: what
    ends the process later adds no line, unless this one has not gone out by then.
    """
    if _ending.is_set() or (_command and _told.is_set()):
        return
    if say is None:
        print(line, file=sys.stderr)
    else:
        say(line)
    _told.set()


def first_when_leaving(action: Callable[[], object]) -> None:
    """From here on `action` is called when the process is ended, before all that was to be."""
    _before_leaving.append(action)


@contextlib.contextmanager
def before_leaving(action: Callable[[], object]) -> Iterator[None]:
    """Inside the block `action` is called should the process be ended there."""
    _before_leaving.append(action)
    try:
        yield
    finally:
        _before_leaving.remove(action)


def _remember(_signal: int, _frame: FrameType | None) -> None:
    _requested.set()
    raise KeyboardInterrupt


def _watch(read: int) -> None:
    while True:
        came = set(os.read(read, 64))
        if came & {signal.SIGINT, signal.SIGTERM} - _in_their_own_time:
            _requested.set()
            time.sleep(LEAVE_WITHIN_S)
            _leave_as_it_stands()


def leave(code: int = INTERRUPTED) -> NoReturn:
    """End the process with that exit code, when everything is said."""
    flushed()
    _tidy()
    os._exit(code)


def flushed() -> bool:
    """Whether all that was said has gone out."""
    out = 0
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
            out += 1
    return out == 2


def give_way_to(command: Sequence[str]) -> NoReturn:
    """End the process, whatever its threads wait for; the command takes its place."""
    flushed()
    _tidy()
    os.execv(sys.executable, [sys.executable, *command[1:]])


def _tidy() -> None:
    # What is taken away now fails in threads of libraries: how the command ended is said.
    threading.excepthook = lambda _: None
    sys.unraisablehook = lambda _: None
    for action in reversed(_before_leaving):
        with contextlib.suppress(Exception):
            action()


def _leave_as_it_stands() -> None:
    """End the process although it is at something: what it runs can be killed at any moment."""
    _ending.set()
    if not _told.is_set():
        with contextlib.suppress(Exception):
            os.write(sys.stderr.fileno(), b"interrupted; the same command goes on from here\n")
    _tidy()
    os._exit(INTERRUPTED)
