"""Where a run's numbers go: to several reporters at once."""

from collections.abc import Mapping
from pathlib import Path

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
