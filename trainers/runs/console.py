"""A run's numbers on a terminal: no part of what a run executes."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO


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
