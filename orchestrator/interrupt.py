"""Ctrl-C and SIGTERM end a study between two steps of its driver, wherever they arrive.

A KeyboardInterrupt that is raised inside a library may be lost in it (a destructor, a callback from
compiled code). So a signal is also remembered, and asked for at places that nothing swallows.
"""

import signal
import threading
from types import FrameType

_requested = threading.Event()


def listen() -> None:
    """Handle SIGINT and SIGTERM here; again after a library has put in handlers of its own.

    `ray job stop` and most schedulers end a driver by SIGTERM: it is treated like Ctrl-C.
    """
    signal.signal(signal.SIGINT, _remember)
    signal.signal(signal.SIGTERM, _remember)


def _remember(_signal: int, _frame: FrameType | None) -> None:
    _requested.set()
    raise KeyboardInterrupt


def check() -> None:
    """Raise KeyboardInterrupt if a signal has come."""
    if _requested.is_set():
        raise KeyboardInterrupt
