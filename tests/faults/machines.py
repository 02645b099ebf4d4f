"""Two machines of a Ray cluster on this one: each a network namespace of its own, with a link.

They share this machine's files, if nothing else is said, as two machines share the folder that a
run root lies in, and nothing more: all that runs on one can be killed at once, and the link between
them can be cut.
"""

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from tests.orchestrator.conftest import environment

HEAD, OTHER = "head", "other"
PORT = 6379
ADDRESSES = {HEAD: "10.213.0.1", OTHER: "10.213.0.2"}

_DISK = "500m"
"""Size of a disk of the other machine's own."""

NOTICED_SOON = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}
"""A machine that does not answer counts as lost after seconds rather than half a minute."""


def why_not() -> str:
    """Why there can be no such machines here; empty where there can."""
    if not sys.platform.startswith("linux") or not shutil.which("ip"):
        return "network namespaces need Linux and its command ip: apt-get install iproute2"
    name = f"dinolab-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return ""


class Machines:
    """A head and another machine, of one CPU each. A context manager.

    On the other one the folders of `empty` are there, with nothing in them, and those of `first`
    are where Python looks first. With `own_disk` it has one of its own for what is of passing use:
    Ray's folder and temporary files.
    """

    def __init__(
        self, *, empty: Sequence[Path] = (), first: Sequence[Path] = (), own_disk: bool = False
    ) -> None:
        self._empty, self._first, self._own_disk = empty, first, own_disk
        self.names = {one: f"dinolab-{one}-{os.getpid()}" for one in ADDRESSES}
        self.address = f"{ADDRESSES[HEAD]}:{PORT}"
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._left = contextlib.ExitStack()
        self._running: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as left:
            for name in self.names.values():
                _ip("netns", "add", name)
                left.callback(_ip, "netns", "delete", name)
            head, other = self.names.values()
            _ip("link", "add", "eth0", "netns", head, "type", "veth",
                "peer", "name", "eth0", "netns", other)  # fmt: skip
            for one, name in self.names.items():
                _ip("-n", name, "address", "add", f"{ADDRESSES[one]}/24", "dev", "eth0")
                for device in ("lo", "eth0"):
                    _ip("-n", name, "link", "set", device, "up")
            # Short: Ray's sockets lie below it.
            self.scratch = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
            left.callback(shutil.rmtree, self.scratch, ignore_errors=True)
            for one in self.names:
                left.callback(self.kill_all, one)
            for one in self.names:
                self.start(one)
            self._left = left.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def start(self, one: str) -> None:
        """Start Ray on a machine on which nothing runs; returns once it has joined."""
        if one == HEAD:
            ports = ["--head", f"--port={PORT}", "--include-dashboard=false"]
        else:
            ports = [f"--address={self.address}"]
        command = [
            sys.executable, "-W", "ignore", "-m", "ray.scripts.scripts", "start", *ports,
            f"--node-ip-address={ADDRESSES[one]}", "--num-cpus=1",
            "--object-store-memory=100000000", "--disable-usage-stats", "--block",
            *([f"--temp-dir={self.scratch}"] if one == HEAD else []),
        ]  # fmt: skip
        changes = {"PYTHONUNBUFFERED": "1"}
        own = [*self._empty, *([self.scratch] if self._own_disk else [])]
        if one == OTHER and own:
            # Each machine has mounts of its own.
            mounts = [f"mount -t tmpfs -o size={_DISK} none {shlex.quote(str(at))}" for at in own]
            command = ["sh", "-c", f'{" && ".join(mounts)} && exec "$@"', "sh", *command]
        if one == OTHER and self._first:
            changes["PYTHONPATH"] = ":".join(map(str, self._first))
        if one == OTHER and self._own_disk:
            changes["TMPDIR"] = str(self.scratch)
        process = self.run(one, command, **changes)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                self._running[one] = process
                return
        raise AssertionError("".join(said))

    def run(self, one: str, command: list[str], **changes: str) -> subprocess.Popen[str]:
        """Start a command on a machine; its output is to be read as it comes."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[one], *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(**NOTICED_SOON, **self.token, **changes),
        )

    def processes(self, one: str, of: str = "") -> Iterator[int]:
        """Numbers of the processes on a machine whose command has `of` in it."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.names[one]], check=True, capture_output=True, text=True
        )
        for number in map(int, listed.stdout.split()):
            with contextlib.suppress(OSError):
                if of in Path(f"/proc/{number}/cmdline").read_text(errors="replace"):
                    yield number

    def signal(self, one: str, of: str, what: signal.Signals) -> list[int]:
        """Send a signal to those processes; returns their numbers."""
        found = list(self.processes(one, of))
        for number in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, what)
        return found

    def kill_all(self, one: str) -> None:
        """Let a machine lose its power."""
        while self.signal(one, "", signal.SIGKILL):
            pass
        if process := self._running.pop(one, None):
            process.communicate()

    def fill(self) -> None:
        """Let the other machine's own disk have no byte left."""
        one = next(iter(self.processes(OTHER, "/raylet/raylet")))
        enter = ["nsenter", "--target", str(one), "--mount"]
        fill = f"cat /dev/zero > {shlex.quote(str(self.scratch / 'full'))}"
        filled = subprocess.run([*enter, "sh", "-c", fill], check=False, capture_output=True)
        assert b"No space left" in filled.stderr, filled.stderr

    def cut(self) -> None:
        """Let the link between the machines fail."""
        _ip("-n", self.names[OTHER], "link", "set", "eth0", "down")
        assert not self.is_linked()

    def mend(self) -> None:
        """Let it work again."""
        _ip("-n", self.names[OTHER], "link", "set", "eth0", "up")

    def is_linked(self) -> bool:
        """Whether the head answers on the other machine."""
        asked = f"import socket; socket.create_connection(({ADDRESSES[HEAD]!r}, {PORT}), 5)"
        with self.run(OTHER, [sys.executable, "-c", asked]) as process:
            process.communicate()
        return process.returncode == 0


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
