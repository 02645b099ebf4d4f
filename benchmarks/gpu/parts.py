"""The parts in order of worth, each in a process of its own and with its share of the time.

A part that crashes, hangs or runs out of memory takes nothing with it, and its memory on the card
is free again for the next.
"""

import faulthandler
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from benchmarks.gpu.record import FAILURES, Record
from benchmarks.gpu.task import Task

LEAST = 12.0
"""Seconds without which a part is not begun."""

GRACE = 15.0
"""Seconds in which a part that is told to end must have ended its own contenders."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A part: `benchmarks.gpu.<name>` has its `run(task, part)`."""

    name: str
    title: str
    weight: float
    """share of the time that is left, beside those of the parts after it"""


STEPS = (
    Step(name="same_bits", title="Same bits", weight=1.5),
    Step(name="same_as_cpu", title="GPU and CPU", weight=0.7),
    Step(name="step", title="Step", weight=4.0),
    Step(name="statistics", title="Attention statistics in training", weight=0.4),
    Step(name="data", title="Data", weight=1.5),
    Step(name="measuring", title="Measuring", weight=1.0),
    Step(name="profile", title="Profile", weight=0.7),
    Step(name="evaluation", title="Evaluation at size", weight=0.4),
    Step(name="same_bits_fast", title="Same bits, speed knobs", weight=0.5),
)


def run_step(step: Step, task: Task, record: Record) -> bool:
    """Whether the part did all it had to; what it found is in the record either way."""
    part = record.part(step.name, step.title)
    if task.left < LEAST and not task.toy:
        part.status("skipped", f"{max(task.left, 0):.0f} s were left for it")
        return True
    process = task.context.Process(target=_serve, args=(step, task, record))
    began, limit = time.monotonic(), max(task.left, 0.0)
    try:
        part.status("running")
        print(f"{step.title}: {limit:.0f} s at most", flush=True)
        process.start()  # the first one waits for what is preloaded
        process.join(max(task.left, 0.0))
        is_cut = process.is_alive()
    except BaseException:
        _end(process)
        part.status("cut", "told to end", time.monotonic() - began)
        raise
    _end(process)
    seconds = time.monotonic() - began
    if is_cut:
        part.status("cut", f"after its {limit:.0f} s", seconds)
    elif process.exitcode:
        what = "" if process.exitcode == 1 else f"exit code {process.exitcode}"
        part.status("failed", what, seconds)
    else:
        part.status("done", "", seconds)
    return not is_cut and not process.exitcode


def _end(process: BaseProcess) -> None:
    if process.pid and process.is_alive():
        process.terminate()
        process.join(GRACE)
    if process.pid and process.is_alive():
        process.kill()
        process.join()


def _serve(step: Step, task: Task, record: Record) -> None:
    """The part's own process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    part = record.part(step.name, step.title)
    with (record.folder / FAILURES).open("a") as failures:
        faulthandler.enable(failures)  # a crash below Python
        if task.left > 2:
            faulthandler.dump_traceback_later(task.left - 1, file=failures)
        try:
            importlib.import_module(f"benchmarks.gpu.{step.name}").run(task, part)
        except Exception:  # noqa: BLE001 (the next part goes on, whatever it was)
            part.fail("the part", traceback.format_exc())
            sys.exit(1)
        finally:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
