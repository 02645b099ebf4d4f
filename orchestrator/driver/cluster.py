"""RAY: the cluster at RAY_ADDRESS, or one of our own."""

import contextlib
import logging
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator import interrupt
from trainers.errors import InputError, reason

ANSWER_WITHIN_S = 50
"""A cluster that takes longer to let a driver in does not answer."""

SOCKET_PATH_BYTES = 103
"""Longest path of a socket that all systems allow (Linux: 107)."""

_LONGEST_SOCKET = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""What Ray adds to its folder."""


@contextlib.contextmanager
def connected(console: Console) -> Iterator[None]:
    """The cluster at RAY_ADDRESS, or a Ray of our own that leaves nothing behind."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    import ray

    address = _address()
    # What goes wrong arrives as an exception, or stands in a trial's folder: Ray logs it besides.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with tempfile.TemporaryDirectory(
        prefix="dinolab-", dir=_scratch(), ignore_cleanup_errors=True
    ) as scratch:
        if address:
            console.print(f"using the Ray cluster at {address}")
            ray.init(**quiet, **shipped_code(address))
        else:
            # Without a token given, Ray writes one into the home directory.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=200 * 2**20,
                _temp_dir=scratch,
                **quiet,
            )
        interrupt.listen()
        try:
            yield
        finally:
            ray.shutdown()


def shipped_code(address: str) -> dict[str, Any]:
    """Our own packages for the cluster's workers, unless a Ray job ships them already."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    home = Path(__file__).parent.parent.parent
    packages = ("trainers", "ablations", "dashboards", "orchestrator")
    return {"runtime_env": {"py_modules": [str(home / name) for name in packages]}}


def check_cluster() -> None:
    """Raises InputError when no Ray can be had: the one at RAY_ADDRESS, or one of our own.

    A process of its own asks the cluster, since Ray may wait for minutes, or end the process.
    """
    address = _address()
    if not address:
        _scratch()
        return
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # Ray itself has started us
        return
    if address.startswith(("http://", "https://")):
        raise _unusable(address, f"that is for `ray job submit --address {address} -- dinolab …`")
    if address.startswith("ray://"):
        raise _unusable(address, "Ray Client lets no driver of trials in")
    # HOST:PORT and [IPV6]:PORT. Ray takes other words too, such as auto: it says what is wrong.
    if found := re.fullmatch(r"\[?([^/]+?)\]?:(\d+)", address):
        try:
            socket.create_connection((found[1], int(found[2])), timeout=10).close()
        except (OSError, OverflowError, UnicodeError) as error:
            what = getattr(error, "strerror", None) or error
            raise _unusable(address, f"nothing answers there ({what})") from error
    try:
        asked = subprocess.run(
            [sys.executable, "-m", "orchestrator.driver.cluster"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=ANSWER_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _unusable(address, f"no cluster answers within {ANSWER_WITHIN_S} s") from error
    if asked.returncode:
        raise _unusable(address, asked.stdout.strip() or "Ray ends when it connects to it")


def _address() -> str:
    """RAY_ADDRESS as given, or empty for a Ray of our own, which Ray too calls local."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return "" if address == "local" else address


def _unusable(address: str, what: str) -> InputError:
    return InputError(
        f"RAY_ADDRESS={address} cannot be used: {what}; give HOST:PORT of a cluster's head (6379, "
        "unless `ray start --head` said another), or unset RAY_ADDRESS to train on this machine"
    )


def _scratch() -> str:
    """A folder for our Ray's files whose path is short enough for its sockets."""
    longest = SOCKET_PATH_BYTES - len(f"/dinolab-12345678/{_LONGEST_SOCKET}")
    folders = [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]
    for folder in folders:
        if len(os.fsencode(folder)) <= longest and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise InputError(
        f"Ray's sockets fit into none of {', '.join(folders)}: set TMPDIR to a folder that can be "
        f"written and whose path has at most {longest} bytes"
    )


def _try_to_connect() -> None:
    """Connect to RAY_ADDRESS; when that fails print why, in one line, and exit with 1."""
    import ray

    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # noqa: BLE001 (whatever Ray raises is the answer)
        # All lines: of another version Ray says on the second one which.
        print(reason(error))
        sys.exit(1)


if __name__ == "__main__":
    _try_to_connect()
