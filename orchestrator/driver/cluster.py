"""RAY: the cluster at RAY_ADDRESS, or one of our own."""

import contextlib
import functools
import gc
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator import interrupt
from orchestrator.resources import share_of_this_machine
from trainers.errors import ClusterError, InputError, first_line, reason

ANSWER_WITHIN_S = 50
"""A cluster that takes longer to let a driver in does not answer."""

RESTARTS = 3
"""How often a Ray of our own that has ended is started again."""

_BEGUN_ANEW = "DINOLAB_BEGUN_ANEW"
"""how often this command has taken its own place, in the environment"""

_LOOKED_EVERY_S = 0.5
"""how often the processes of our own Ray are looked at"""

_NOTICED_WITHIN_S = 6.0
"""for which a command that has lost its Ray may go on its own way"""

_STARTED_WITHIN_S = 10.0
"""for which a command that is refused waits for the Ray that it began"""

_GONE_WITHIN_S = 2.0
"""for which a command that ends tries to take what it has begun with it"""

SOCKET_PATH_BYTES = 103
"""Longest path of a socket that all systems allow (Linux: 107)."""

_LONGEST_SOCKET = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""What Ray adds to its folder."""


class Cluster:
    """The cluster at RAY_ADDRESS, or a Ray of our own that leaves nothing behind.

    It comes up, and goes, beside whatever else a command does. A context manager, whose end waits
    until the cluster is left. Of this machine `leave_cpus` are left to others.
    """

    def __init__(self, leave_cpus: int = 0) -> None:
        self.leave_cpus = leave_cpus
        self._scratch: Future[Path] = Future()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to connect beforehand, while what needs no cluster is done."""
        self._begin()

    def _begin(self) -> None:
        if self._thread is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
            # Here: two threads that import much at once may see halves of modules.
            import ray  # noqa: F401

            # What runs of our own Ray ends with the thread that started it, so one thread does all.
            self._thread = threading.Thread(target=self._hold, daemon=True)
            self._thread.start()

    def connected(self) -> Path:
        """A folder for files of this process, once the cluster is there.

        Raises InputError when no CPU would be left for trials, or the cluster is not this machine,
        and ClusterError when our own Ray does not start.
        """
        self._begin()
        return self._scratch.result()

    def leave(self) -> None:
        """Begin to leave the cluster; nothing runs on it any more."""
        self._over.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()
        if self._thread is None:
            return
        if error is None or self._scratch.done():
            self._thread.join()
        elif not interrupt.requested():
            # A command that is refused says so before it waits for a Ray that starts: one that is
            # killed while it starts lets no other thread run for 30 s.
            interrupt.first_when_leaving(functools.partial(self._thread.join, _STARTED_WITHIN_S))

    def _hold(self) -> None:
        try:
            with _connected(self.leave_cpus) as scratch:
                self._scratch.set_result(scratch)
                while not self._over.wait(_LOOKED_EVERY_S):
                    if lost := _lost_of_ours():
                        self._begin_anew(lost)
                        self._over.wait()
        except BaseException as error:
            if self._scratch.done():
                raise
            self._scratch.set_exception(error)

    def _begin_anew(self, lost: str) -> None:
        """Our own Ray has ended: what asks it anything waits, and soon Ray ends this process.

        Unless that notices it, the same command takes its place, as if it had been killed.
        """
        command = interrupt.command()
        if not command or self._over.wait(_NOTICED_WITHIN_S) or interrupt.requested():
            return
        again = int(os.environ.get(_BEGUN_ANEW, "0")) + 1
        if again > RESTARTS:
            print(f"{lost}; nothing is lost: the same command goes on from here", file=sys.stderr)
            interrupt.leave(1)
        print(f"note: {lost}; the command begins anew, and trials go on from there")
        os.environ[_BEGUN_ANEW] = str(again)
        interrupt.give_way_to(command)


@contextlib.contextmanager
def _connected(leave_cpus: int) -> Iterator[Path]:
    """See Cluster."""
    address = address_given()
    if address and leave_cpus:
        raise InputError(
            f"--leave-cpus {leave_cpus} is of this machine, and RAY_ADDRESS={address} is not it; "
            "give --max-concurrent, or unset RAY_ADDRESS"
        )
    import ray

    cpus = share_of_this_machine(_cpus_of_this_machine(), leave_cpus)
    # What Ray itself says on the output of its driver is of no use to who runs a study.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    # What goes wrong arrives as an exception, or stands in a trial's folder: Ray logs it besides.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with (
        tempfile.TemporaryDirectory(
            prefix="dinolab-", dir=_scratch(), ignore_cleanup_errors=True
        ) as scratch,
        interrupt.before_leaving(lambda: _abandon(scratch)),
    ):
        # Its compiled code ends a process at SIGTERM, and lets go of it when it is shut down.
        with interrupt.kept():
            if address:
                ray.init(**quiet, **shipped_code(address))
            else:
                _start(scratch, cpus, quiet)
        try:
            yield Path(scratch)
        finally:
            with interrupt.kept(), _nothing_collected():
                ray.shutdown()


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """No thread collects what is left in cycles, in the meantime.

    Ray's compiled code ends the process, with exit code 1, where a reference to an object of Ray's
    goes while another thread is amid `ray.shutdown`.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _start(scratch: str, cpus: int, quiet: dict[str, Any]) -> None:
    """Start a Ray of this machine for this process. Raises ClusterError, one line."""
    import ray

    # Nobody reads its logs, looks at its board or adds machines to it: each of the processes that
    # would serve for that takes a second of a processor to start.
    for unused in ("start_monitor", "start_log_monitor", "start_api_server"):
        setattr(ray._private.node.Node, unused, lambda *_, **__: None)
    # Without a token given, Ray writes one into the home directory.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            num_cpus=cpus,
            _temp_dir=scratch,
            **quiet,
        )
    except Exception as error:  # whatever Ray raises, as when it has taken 30 s
        what = first_line(error).rstrip(".")
        raise ClusterError(
            f"Ray has not started: {what}; nothing is lost: run the same command again, when this "
            "machine has less to do"
        ) from error


def _abandon(scratch: str) -> None:
    """End what runs of our own Ray, and delete its files: the process ends where it stands."""
    import ray

    if node := ray._private.worker._global_node:
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    # One that is still starting is not known there, and what runs of it writes its files again.
    until = time.monotonic() + _GONE_WITHIN_S
    while Path(scratch).exists() and time.monotonic() < until:
        for process in _started_in(scratch):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(scratch, ignore_errors=True)


def _started_in(scratch: str) -> Iterator[int]:
    """Numbers of our children whose command names this folder; none where there is no /proc."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            names_it = os.fsencode(scratch) in (process / "cmdline").read_bytes()
            if parent == str(os.getpid()) and names_it:
                yield int(process.name)


def _cpus_of_this_machine() -> int:
    import ray

    return int(ray._private.utils.get_num_cpus())


class RayGone(BaseException):
    """The Ray that this process uses has ended: what asks it anything waits until it is ended too.

    No Exception, at which Tune would ask it to clean up.
    """


def refuse_lost() -> None:
    """Raises RayGone, one line, when the Ray that this process uses has ended."""
    import ray

    if lost := _lost_of_ours():
        raise RayGone(lost)
    here = ray.get_runtime_context().get_node_id()
    if all(one["NodeID"] != here or not one["Alive"] for one in ray.nodes()):
        raise RayGone("Ray has ended: the cluster has lost the node that this process is on")


def _lost_of_ours() -> str:
    """Which process of our own Ray has ended, in words; empty where all run."""
    import ray

    node = ray._private.worker._global_node
    ours: dict[str, Any] = node.all_processes if node else {}
    for name in ("gcs_server", "raylet"):
        if any(one.process.poll() is not None for one in ours.get(name, ())):
            return f"Ray has ended: its {name} was killed, or ran out of memory"
    return ""


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
    address = address_given()
    if not address:
        _scratch()
        return
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # Ray itself has started us
        return
    if address.startswith(("http://", "https://")):
        raise _unusable(address, f"that is for `dinolab submit STUDY --address {address}`")
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


def address_given() -> str:
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
