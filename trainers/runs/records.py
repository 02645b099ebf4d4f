"""Metrics of a run by step, in segments that are only ever added to and end with a checkpoint."""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

from trainers.errors import InputError
from trainers.system.store import Store

Record = tuple[int, dict[str, float]]
"""Step and metrics."""

Digest = dict[str, str | int]
"""`sha256`, hexadecimal, and `bytes` of a file."""

_SEGMENT_BYTES = 2**16
"""A segment that is so long is ended: each report writes the open one again."""

_REMOTE_EVERY_S = 5.0
"""On object storage the open segment is written so often at most."""


def is_segment(name: str) -> bool:
    """Whether a file of an attempt holds records."""
    return name.startswith("metrics-") and name.endswith(".jsonl")


def digest_of(content: bytes) -> Digest:
    """The digest of a file's content."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


class Records:
    """A Reporter that writes the segments of an attempt into `folder` of a store.

    `before` are the records, as lines, of the attempts that this one goes on from.
    """

    def __init__(self, store: Store, folder: str, *, before: bytes = b"") -> None:
        self.store, self.folder = store, folder
        self._closed: dict[str, Digest] = {}
        self._name, self._open = "", b""
        self._put_at = -math.inf
        self._is_put = True
        if before:
            self._add(parse(before, folder)[0][0], before)
            self.cut()

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        """See Reporter."""
        if metrics:
            self._add(step, _line(step, metrics))
            is_due = time.monotonic() - self._put_at >= _REMOTE_EVERY_S
            if self.store.local is not None or is_due:
                self._put()
            if len(self._open) >= _SEGMENT_BYTES:
                self.cut()

    def cut(self) -> dict[str, Digest]:
        """End the open segment; the digests of all there are, by name."""
        if self._open:
            self._put()
            self._closed[self._name] = digest_of(self._open)
            self._name, self._open = "", b""
        return dict(self._closed)

    def _add(self, step: int, lines: bytes) -> None:
        if not self._open:
            self._name = f"metrics-{step:09d}.jsonl"
        self._open += lines
        self._is_put = False

    def _put(self) -> None:
        if not self._is_put:
            self.store.put(f"{self.folder}/{self._name}", self._open)
            self._is_put, self._put_at = True, time.monotonic()


def _line(step: int, metrics: Mapping[str, float]) -> bytes:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value} at step {step}: not a number to report")
    return (json.dumps({"step": step, "metrics": dict(metrics)}) + "\n").encode()


def parse(content: bytes, name: str) -> list[Record]:
    """The records that a segment called `name` holds, in its order.

    Raises InputError for a line that is no record, with its number. A value of null is NaN.
    """
    *lines, rest = content.split(b"\n")
    records = []
    for number, line in enumerate([*lines, *([rest] if rest else [])], start=1):
        try:
            record = json.loads(line)
            values = {
                str(metric): math.nan if value is None else float(value)
                for metric, value in record["metrics"].items()
            }
            records.append((int(record["step"]), values))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f"{name} is damaged: line {number} is not a metrics record; restore the file, or "
                "run the same command again, which trains that run again"
            ) from None
    return records


def lines_up_to(content: bytes, step: int, name: str) -> bytes:
    """The lines of a segment up to `step`, as they are. Raises InputError as `parse` does."""
    kept = [
        line + b"\n"
        for line, (own, _) in zip(content.split(b"\n"), parse(content, name), strict=False)
        if own <= step
    ]
    return b"".join(kept)
