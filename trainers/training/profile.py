"""What a few steps of a run spend their time on, by PyTorch's profiler: a trace and a table."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from trainers.errors import InputError, reason
from trainers.system.atomic import replace, replacing_by_name

FIRST, LAST = 4, 6
"""Steps of a process that are profiled; those before make tables and plans that later ones find."""

TRACE, TABLE = "trace.json", "operations.txt"

_ROWS = 30

Tell = Callable[[str], None]


def check_folder(folder: Path) -> None:
    """Raise InputError, one line, where `folder` cannot be one that is written to."""
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise InputError(f"--profile {folder}: {there} is a file; give a folder, new or not")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"--profile {folder}: {there} may not be written to; give another folder")


@contextmanager
def profiling(folder: Path | None, tell: Tell) -> Iterator[Callable[[], None]]:
    """What is to be called after each step, so that `folder` gets the profile of a few of them.

    `tell` is given one line: where the profile is, or that there were too few steps. Without a
    folder nothing is profiled. What a run computes stays the same.
    """
    if folder is None:
        yield lambda: None
        return
    # Its library would write lines of its own among those of the run. What compiles may load it.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    found = _Profile(folder, tell)
    try:
        yield found.step_done
    finally:
        found.end()


class _Profile:
    """Steps FIRST to LAST, with what comes between them."""

    def __init__(self, folder: Path, tell: Tell) -> None:
        self.folder, self.tell, self.done = folder, tell, 0
        self.profiler: profile | None = None

    def step_done(self) -> None:
        self.done += 1
        if self.done == FIRST - 2:
            self.profiler = _started()
        elif self.profiler is not None and self.done < LAST:
            self.profiler.step()
        elif self.profiler is not None:
            self.profiler.stop()
            self._write(self.profiler)
            self.profiler = None

    def end(self) -> None:
        if self.profiler is not None:
            self.profiler.stop()
        if self.done < LAST:
            self.tell(
                f"nothing is profiled: steps {FIRST} to {LAST} of a process would be, and this one "
                f"has made {self.done}"
            )

    def _write(self, profiler: profile) -> None:
        on_gpu = ProfilerActivity.CUDA in profiler.activities
        order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=_ROWS)
        trace = self.folder / TRACE
        try:
            replace(self.folder / TABLE, table.encode())
            with replacing_by_name(trace) as written:
                profiler.export_chrome_trace(str(written))
        except OSError as error:
            # The run goes on: it is worth more than its profile.
            self.tell(f"the profile could not be written to {self.folder}: {reason(error)}")
        else:
            self.tell(
                f"profile of steps {FIRST} to {LAST} of this process: {trace} (opens in "
                f"ui.perfetto.dev), dearest operations in {self.folder / TABLE}"
            )


def _started() -> profile:
    """A profiler in its own first step, which it leaves out: its start takes time."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_initialized():
        activities.append(ProfilerActivity.CUDA)
    steps = schedule(wait=0, warmup=1, active=LAST - FIRST + 1, repeat=1)
    profiler = profile(activities=activities, schedule=steps, acc_events=True)
    profiler.start()
    return profiler
