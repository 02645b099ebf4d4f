"""What a person sees while a study runs: live bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_PLAIN_EVERY_S = 30.0


class StudyProgress:
    """Progress of a study and of each running trial. A context manager."""

    def __init__(self, console: Console, *, name: str, trials: int, live: bool) -> None:
        self.console = console
        self.trials = trials
        self.done = 0
        self.bars: dict[str, TaskID] = {}
        self.latest: dict[str, str] = {}
        self.numbers: dict[str, dict[str, float]] = {}
        self.spoke = time.monotonic()
        self.progress = (
            Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}", markup=False),
                console=console,
            )
            if live
            else None
        )
        if self.progress:
            self.total = self.progress.add_task(f"study {name}", total=trials, numbers="")

    def __enter__(self) -> Self:
        if self.progress:
            self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.progress:
            self.progress.stop()

    def moved(self, title: str, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """A running trial has come to `step` of `steps`, with these newest metrics."""
        known = self.numbers.setdefault(title, {})
        known.update(metrics)
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in known.items())
        if self.progress:
            if title not in self.bars:
                self.bars[title] = self.progress.add_task(f"  {title}", total=steps, numbers="")
            bar = self.bars[title]
            self.progress.update(bar, completed=step, numbers=numbers)
            return
        self.latest[title] = f"{title} {step}/{steps}"
        if time.monotonic() - self.spoke > _PLAIN_EVERY_S:
            self.spoke = time.monotonic()
            self.console.print(f"running: {', '.join(self.latest.values())}")

    def note(self, title: str, text: str) -> None:
        """Something has happened to a trial that does not end it."""
        self.latest.pop(title, None)
        self.console.print(f"{title}: {text}")

    def ended(self, title: str, outcome: str) -> None:
        """A trial has ended, with this outcome in words."""
        self.done += 1
        self.latest.pop(title, None)
        self.spoke = time.monotonic()
        line = f"[{self.done}/{self.trials}] {title}: {outcome}"
        self.console.print(line)
        if self.progress:
            if title in self.bars:
                self.progress.remove_task(self.bars.pop(title))
            self.progress.update(self.total, completed=self.done)
