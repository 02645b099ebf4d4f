"""What the loop knows of those who receive a run's numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Reporter(Protocol):
    """Receives the metrics of a step, and checkpoints once they are whole."""

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        """Take the metrics of `step`; called by every worker, equally often, in step order.

        A checkpoint comes by itself, to the first worker's alone, when it is whole: after metrics
        of later steps.
        """
