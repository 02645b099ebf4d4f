"""Where a run's numbers go: a file, several reporters at once."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from trainers.errors import InputError
from trainers.system.atomic import replacing
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
        # Nothing is kept of a run that starts anew, so whatever is there may be damaged.
        known = read_records(path) if keep_up_to >= 0 else []
        kept = [record for record in known if record[0] <= keep_up_to]
        with replacing(path) as file:
            for step, metrics in kept:
                file.write(self._line(step, metrics))

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        """See Reporter."""
        if metrics:
            with self.path.open("ab") as file:
                file.write(self._line(step, metrics))
                file.flush()
                os.fsync(file.fileno())

    @staticmethod
    def _line(step: int, metrics: Mapping[str, float]) -> bytes:
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value} at step {step}: not a number to report")
        return (json.dumps({"step": step, "metrics": dict(metrics)}) + "\n").encode()


def read_records(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Steps and metrics of a JsonLines file, in its order; none where there is no file.

    A last line without its end is left out: it is still being written, or a kill cut it off. Raises
    InputError for any other line that is no record, with its number. A value of null is NaN.
    """
    if not path.is_file():
        return []
    *lines, _unfinished = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            values = {
                str(name): math.nan if value is None else float(value)
                for name, value in record["metrics"].items()
            }
            records.append((int(record["step"]), values))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f"{path} is corrupt: line {number} is not a metrics record; "
                "restore the file, or remove the folder of this run and run it again"
            ) from None
    return records
