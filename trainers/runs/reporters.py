"""Where a run's numbers go: a file, a terminal, several at once."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from trainers.training.reporter import Reporter


class Fanout:
    """Passes every report to each of several reporters, in order."""

    def __init__(self, *reporters: Reporter) -> None:
        self.reporters = reporters

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        """See Reporter."""
        for reporter in self.reporters:
            reporter.report(step, metrics, checkpoint=checkpoint)


class JsonLines:
    """Appends each report to a file as one JSON object a line, flushed to disk.

    Starting from a checkpoint at `keep_up_to` drops the records behind it, which will come again.
    """

    def __init__(self, path: Path, *, keep_up_to: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [r for r in read_records(path) if r[0] <= keep_up_to] if path.exists() else []
        with path.open("w") as file:
            for step, metrics in kept:
                self._write(file, step, metrics)

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        """See Reporter."""
        if metrics:
            with self.path.open("a") as file:
                self._write(file, step, metrics)
                file.flush()
                os.fsync(file.fileno())

    @staticmethod
    def _write(file: TextIO, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value} at step {step}: not a number to report")
        file.write(json.dumps({"step": step, "metrics": dict(metrics)}) + "\n")


def read_records(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Steps and metrics of a JsonLines file; a last line cut off by a kill is left out."""
    records = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        records.append((record["step"], record["metrics"]))
    return records


class Console:
    """Prints a plain line for each report."""

    def __init__(self, out: TextIO, *, steps: int) -> None:
        self.out = out
        self.steps = steps
        self.started = time.monotonic()

    SHOWN = ("loss/total", "knn/cls_top1", "globality/cls/gyration", "globality/patch/gyration")

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        """See Reporter."""
        shown = [f"{name} {metrics[name]:.4f}" for name in self.SHOWN if name in metrics]
        if shown:
            seconds = time.monotonic() - self.started
            print(
                f"step {step}/{self.steps}  {'  '.join(shown)}  {seconds:.0f} s",
                file=self.out,
                flush=True,
            )
