"""Contenders, each in a process of its own, measured in turns: ours, peer, ours, peer, and so on.

Machines are shared and clocks wander, so a time alone says little. Here every round measures each
contender once, and what counts is the ratio inside a round. While one runs, the processes of all
others, with any loader workers they started, are stopped, so that nobody works ahead. A round in
which other people's processes took more than QUIET of the processors is held again.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

Context = SpawnContext | ForkServerContext
"""How processes are started: anew, or from one that has imported much before, without CUDA."""

Advance = Callable[[int], float]
"""Does that many steps and returns what was done: images, or floating-point operations."""

OURS = "ours"

QUIET = 0.05
"""Share of all processors that strangers may take in a turn."""

PATIENCE = 4
"""Rounds held for each one asked for, at most; then the quietest count."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One side of a contest: `make(*arguments)` runs in the new process and returns its advance."""

    name: str
    make: Callable[..., Advance]
    arguments: tuple[Any, ...] = ()
    threads: int = 0
    """CPU threads of this contender; 0 for what the contest gives to all"""
    steps: int = 0
    """steps a round; 0 for what the contest gives to all"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a contender did: seconds and amount of each round, and the memory it took."""

    name: str
    steps: int
    seconds: list[float]
    amounts: list[float]
    disturbance: float
    """largest share of all processors that strangers took in a turn of these rounds"""
    peak_bytes: int
    """on the GPU the most that was allocated; on the CPU the largest resident size less that at the
    start, when only libraries were loaded"""
    failure: str = ""

    @property
    def rates(self) -> list[float]:
        """Amount a second of each round."""
        return [amount / second for amount, second in zip(self.amounts, self.seconds, strict=True)]

    @property
    def rate(self) -> float:
        """Median amount a second."""
        return statistics.median(self.rates)

    @property
    def seconds_a_step(self) -> float:
        """Median seconds of one step."""
        return statistics.median(self.seconds) / self.steps


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as fast one contender was as another, round by round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """The median, and the smallest and largest of the rounds."""
        return f"{self.median:.2f}× ({self.low:.2f}..{self.high:.2f})"


def ratio(mine: Outcome, other: Outcome) -> Ratio:
    """Rate of `mine` over that of `other` in the same rounds."""
    rounds = [a / b for a, b in zip(mine.rates, other.rates, strict=True)]
    return Ratio(median=statistics.median(rounds), low=min(rounds), high=max(rounds))


def hold(
    contenders: list[Contender],
    *,
    rounds: int,
    steps: int,
    warmup: int,
    threads: int,
    context: Context | None = None,
    patience: int = PATIENCE,
) -> list[Outcome]:
    """Let the contenders take turns: `rounds` rounds of `steps` steps each, after a warm-up.

    At most `patience` rounds are held for each asked for. Each side gets `threads` CPU threads. One
    that fails leaves, with the reason in its outcome. Without `context` each process starts anew.
    """
    context = context or multiprocessing.get_context("spawn")
    sides = []
    # Stopped children would outlive a parent that is terminated on the spot.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for contender in contenders:
            # Each is built, warmed up and stopped before the next one starts.
            sides.append(_Side(context, contender, steps, threads))
            sides[-1].turn(min(warmup, contender.steps or warmup), counts=False)
        disturbances: list[float] = []
        for _ in range(rounds * patience):
            disturbances.append(max(side.turn(side.steps, counts=True) for side in sides))
            if sum(one <= QUIET for one in disturbances) == rounds:
                break
        order = sorted(range(len(disturbances)), key=lambda place: disturbances[place])
        counted = sorted(order[:rounds])
        return [side.outcome(counted, disturbances) for side in sides]
    finally:
        for side in sides:
            side.end()


class _Side:
    """The parent's end of one contender."""

    def __init__(
        self,
        context: Context,
        contender: Contender,
        steps: int,
        threads: int,
    ) -> None:
        self.name = contender.name
        self.steps = contender.steps or steps
        self.seconds: list[float] = []
        self.amounts: list[float] = []
        self.peak, self.failure = 0, ""
        self.pipe, theirs = context.Pipe()
        threads = contender.threads or threads
        with _environment({"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}):
            self.process: BaseProcess = context.Process(
                target=_serve,
                args=(theirs, contender.make, contender.arguments, threads),
            )
            self.process.start()
        theirs.close()
        self._receive()
        self._signal(signal.SIGSTOP)

    def turn(self, steps: int, counts: bool) -> float:
        """Returns the share of all processors that others took meanwhile."""
        if self.failure or not steps:
            return 0.0
        before, own = _processors(), _group_seconds(self.process.pid or 0)
        self._signal(signal.SIGCONT)
        self.pipe.send(steps)
        reply = self._receive()
        self._signal(signal.SIGSTOP)
        after, own = _processors(), _group_seconds(self.process.pid or 0) - own
        if counts and not self.failure:
            seconds, amount, self.peak = reply
            self.seconds.append(seconds)
            self.amounts.append(amount)
        return max(0.0, after[0] - before[0] - own) / max(after[1] - before[1], 1e-9)

    def outcome(self, counted: list[int], disturbances: list[float]) -> Outcome:
        chosen = [] if self.failure else counted
        return Outcome(
            name=self.name,
            steps=self.steps,
            seconds=[self.seconds[place] for place in chosen],
            amounts=[self.amounts[place] for place in chosen],
            disturbance=max((disturbances[place] for place in chosen), default=0.0),
            peak_bytes=self.peak,
            failure=self.failure,
        )

    def end(self) -> None:
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()

    def _receive(self) -> Any:
        try:
            reply = self.pipe.recv()
        except EOFError:
            reply = f"its process ended with exit code {self.process.exitcode}"
        if isinstance(reply, str):
            self.failure = reply
        return reply

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid or 0, number)


def _processors() -> tuple[float, float]:
    """Seconds that all processors were busy so far, and that passed on all of them."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, idle, waiting, *interrupts_and_stolen = (int(field) for field in fields)
    busy = user + nice + system + sum(interrupts_and_stolen)
    ticks = os.sysconf("SC_CLK_TCK")
    return busy / ticks, (busy + idle + waiting) / ticks


def _group_seconds(group: int) -> float:
    """Processor seconds of the living processes of a group, and of their ended children."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                total += sum(int(field) for field in fields[11:15])
    return total / os.sysconf("SC_CLK_TCK")


def _serve(
    pipe: Connection, make: Callable[..., Advance], arguments: tuple[Any, ...], threads: int
) -> None:
    """The contender's own process: build, then advance as often as the parent says."""
    os.setsid()  # a group of its own, which the parent stops and wakes with its loader workers
    torch.set_num_threads(threads)
    try:
        idle = resident_peak(reset=True)
        advance = make(*arguments)
        pipe.send(None)
        while True:
            steps = pipe.recv()
            started = time.perf_counter()
            amount = advance(steps)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            pipe.send((seconds, amount, peak_bytes(idle)))
    except (EOFError, ConnectionResetError):  # the parent has ended
        return
    except Exception:  # noqa: BLE001 (whatever a peer raises is the parent's to show)
        pipe.send(traceback.format_exc().strip())


def peak_bytes(idle: int) -> int:
    """The most memory this process has used so far; on the CPU, beyond `idle` bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resident_peak() - idle


def resident_peak(reset: bool = False) -> int:
    """Largest resident size of this process so far, bytes; with `reset`, counted from now on."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def _environment(change: Mapping[str, str]) -> Iterator[None]:
    """Environment variables as a child finds them at its start."""
    before = {name: os.environ.get(name) for name in change}
    os.environ.update(change)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass(frozen=True, kw_only=True)
class Goal:
    """How many times as fast as a peer we mean to be."""

    peer: str
    ratio: float


def show(
    title: str,
    outcomes: list[Outcome],
    *,
    goals: list[Goal],
    notes: list[str],
    unit: str = "images/s",
    ceiling: Outcome | None = None,
    operations_a_unit: float = 0.0,
    json_path: Path | None = None,
) -> None:
    """Print the table, a line for each goal, and the notes; with `json_path`, write all of it.

    `ceiling` is an outcome in floating-point operations; with it, the fraction of it that each
    contender reaches is shown, counting `operations_a_unit` for each image of everybody.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(width=120, highlight=False)
    table = Table(title=title, title_justify="left")
    table.add_column("contender")
    for heading in ("ms a step", unit, "peak MB", "ours is"):
        table.add_column(heading, justify="right")
    if ceiling:
        table.add_column("GFLOP/s", justify="right")
        table.add_column("of ceiling", justify="right")
    done = {outcome.name: outcome for outcome in outcomes if not outcome.failure}
    ours = done.get(OURS)
    for outcome in done.values():
        compared = str(ratio(ours, outcome)) if ours and outcome is not ours else ""
        row = [
            outcome.name,
            f"{outcome.seconds_a_step * 1e3:.1f}",
            f"{outcome.rate:.2f}",
            f"{outcome.peak_bytes / 2**20:.0f}",
            compared,
        ]
        if ceiling:
            row += [
                f"{outcome.rate * operations_a_unit / 1e9:.0f}",
                f"{_share(outcome, ceiling, operations_a_unit):.0%}",
            ]
        table.add_row(*row)
    console.print(table)
    if ceiling:
        console.print(f"ceiling: {ceiling.rate / 1e9:.0f} GFLOP/s, matrix products of these shapes")
    for outcome in outcomes:
        if outcome.failure:
            console.print(f"{outcome.name} FAILED:\n{outcome.failure}", markup=False)
    noisy = max((outcome.disturbance for outcome in done.values()), default=0.0)
    if noisy > QUIET:
        notes = [*notes, f"not quiet: others took up to {noisy:.0%} of the processors in a turn"]
    verdicts = []
    for goal in goals:
        if ours and goal.peer in done:
            reached = ratio(ours, done[goal.peer])
            word = "met" if reached.median >= goal.ratio else "NOT met"
            verdicts.append(f"goal ≥ {goal.ratio}× {goal.peer}: {reached}, {word}")
    for line in verdicts + notes:
        console.print(line, markup=False)
    if json_path:
        tree = {
            "title": title,
            "machine": machine(),
            "outcomes": [asdict(outcome) | {"rate": outcome.rate} for outcome in done.values()],
            "failures": {o.name: o.failure for o in outcomes if o.failure},
            "ratios": {
                name: asdict(ratio(ours, outcome))
                for name, outcome in done.items()
                if ours and outcome is not ours
            },
            "ceiling": ceiling.rate if ceiling else None,
            "goals": verdicts,
            "notes": notes,
        }
        json_path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n")


def _share(outcome: Outcome, ceiling: Outcome, operations_a_unit: float) -> float:
    """Median over rounds of what a contender reached of the ceiling of the same round."""
    pairs = zip(outcome.rates, ceiling.rates, strict=True)
    return statistics.median(mine * operations_a_unit / top for mine, top in pairs)


def machine() -> str:
    """The device in words, without names of hosts."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":")[1].strip()
            break
    else:
        name = "CPU"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{os.cpu_count()} cores of {name}, {capability}, torch {torch.__version__}"
