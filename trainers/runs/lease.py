"""Who is at an attempt. A lease only saves work: two attempts at once harm nothing.

An attempt is claimed by putting the lease of the next number where nobody was first. Its holder
alone writes it again, every few seconds. No clock of another machine decides whether it is over.
"""

import dataclasses
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from trainers.errors import StoreError
from trainers.system.seconds import seconds_given
from trainers.system.store import Store

Outcome = Literal["", "finished", "failed", "interrupted", "superseded"]

_PATIENCE_S = 2.0

EVERY_S = 5.0
"""How often a holder writes its lease."""


def expires_s() -> float:
    """A lease that has not changed for so long is over: DINOLAB_LEASE_S seconds (60).

    Raises ConfigError.
    """
    return seconds_given("DINOLAB_LEASE_S", 60, _DAY_S)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process. Whether it lives can be told where its host is the same."""

    host: str
    """name of the machine, for people"""
    space: str
    """this boot of the machine, and its space of process numbers; empty where that is unknown"""
    pid: int
    started: str
    """when the process began, in ticks since the boot: numbers of processes come again"""

    @classmethod
    def this(cls) -> Self:
        """The process that asks."""
        pid = os.getpid()
        return cls(host=socket.gethostname(), space=_space(), pid=pid, started=_started(pid))

    def is_gone(self) -> bool:
        """Whether the process has certainly ended, as far as can be told from here."""
        here = bool(self.space) and self.space == _space()
        return here and _started(self.pid) != self.started and not _is_hidden(self.pid)


def _space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began; empty when there is none, or it is only waited for by its parent."""
    try:
        # Behind the name, which may hold anything: state, and 19 further on the start.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _is_hidden(pid: int) -> bool:
    """Whether a process of that number is somebody else's, which a system may not show."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What `lease.json` of an attempt holds."""

    holder: Holder
    driver: str
    """who asked for the attempt; empty for a run of its own"""
    from_attempt: int
    """whose checkpoint it goes on from; 0 when it starts anew"""
    from_step: int
    """of that checkpoint; -1 when it starts anew"""
    steps: int
    """updates of the whole run"""
    nonce: str = ""
    """no other claim has it: a claim whose answer was lost is known by its bytes"""
    beat: int = 0
    """counts how often it was written"""
    step: int = 0
    """updates done so far"""
    rate: float = 0.0
    """updates a second, of late"""
    outcome: Outcome = ""
    """how the attempt ended; empty while it runs"""

    def content(self) -> bytes:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def read(cls, content: bytes | None) -> "Lease | None":
        """The lease that `content` holds; None for a damaged one, whose holder is unknown."""
        try:
            found: dict[str, Any] = json.loads(content or b"")
            return cls(**{**found, "holder": Holder(**found["holder"])})
        except (ValueError, TypeError, KeyError):
            return None


class Watch:
    """Tells which attempts are over, by how long it has itself seen no change of their leases."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}

    def is_over(self, name: str, lease: Lease | None) -> bool:
        """Whether the attempt of that name has ended: it says so, or its process is gone, or quiet.

        A damaged lease counts as one that does not change.
        """
        if lease is not None and (lease.outcome or lease.holder.is_gone()):
            return True
        return self.quiet_s(name, lease) >= expires_s()

    def quiet_s(self, name: str, lease: Lease | None) -> float:
        """Seconds for which it has seen no change of the lease of that name; 0 at first."""
        beat, now = -1 if lease is None else lease.beat, self._clock()
        known, since = self._seen.get(name, (None, now))
        if known != beat:
            since = now
        self._seen[name] = (beat, since)
        return now - since


class Held:
    """A lease of this process, written again by a thread until the attempt has ended."""

    def __init__(self, store: Store, key: str, lease: Lease, is_superseded: Callable[[], bool]):
        self.store, self.key, self.lease = store, key, lease
        self._is_superseded = is_superseded
        self.superseded = False
        """whether somebody has taken this attempt for dead, and begun another"""
        self._ended = threading.Event()
        self._changes = threading.Lock()
        self._moved: list[tuple[float, int]] = [(time.monotonic(), lease.step)]
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def starts_at(self, step: int) -> None:
        """The run goes on from `step`."""
        self._moved = [(time.monotonic(), step)]

    def at(self, step: int) -> None:
        """The run has come to `step`."""
        self._moved = [*self._moved[-_RATE_OVER:], (time.monotonic(), step)]

    def end(self, outcome: Outcome) -> None:
        """Write how the attempt ended. If the store does not answer, the lease expires."""
        self._ended.set()
        # It may be at a store that does not answer; the attempt ends all the same.
        self._thread.join(_PATIENCE_S)
        if not self._thread.is_alive():
            self._write(outcome)

    def change(self, **changes: Any) -> None:
        """Write other values of the lease. Raises StoreError."""
        with self._changes:
            self.lease = dataclasses.replace(self.lease, beat=self.lease.beat + 1, **changes)
            self.store.put(self.key, self.lease.content())

    def _beat(self) -> None:
        while not self._ended.wait(min(EVERY_S, expires_s() / 6)):
            self._write("")

    def _write(self, outcome: Outcome) -> None:
        (before, first), (now, last) = self._moved[0], self._moved[-1]
        rate = (last - first) / (now - before) if now > before else 0.0
        try:
            self.change(step=last, rate=round(rate, 3), outcome=outcome)
            self.superseded = self.superseded or self._is_superseded()
        except StoreError:
            pass  # the next beat may succeed


_DAY_S = 86400

_RATE_OVER = 20
"""Steps over which the rate is taken."""
