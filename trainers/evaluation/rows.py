"""Features of more images than memory holds, read again in blocks."""

import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import torch
from torch import Tensor

from trainers.errors import InputError, reason

BLOCK = 8192
"""Rows of a block: 96 MiB of four blocks of a ViT-B. Fewer rows than that never leave memory."""


class Rows:
    """Rows float32 [n, `width`], added batch by batch; iterated over in blocks of BLOCK, in order.

    Without any row there is one block of none. The last block stays in memory, on `device`. Those
    before it lie in a temporary file in the folder that TMPDIR names: they take page cache, and
    none of this process's memory.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.width, self.device = width, device
        self._open: list[Tensor] = []
        self._written = 0
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return self._written * BLOCK + sum(map(len, self._open))

    def add(self, rows: Tensor) -> None:
        """Put more rows behind the others. Raises InputError when the file cannot be written."""
        # Not a view, which would keep alive all that it is a part of.
        self._open.append(rows.to(torch.float32, copy=True))
        if sum(map(len, self._open)) > BLOCK:
            *full, last = torch.cat(self._open).split(BLOCK)
            for block in full:
                self._write(block)
            self._open = [last.clone()]

    def __iter__(self) -> Iterator[Tensor]:
        if len(self._open) != 1:
            self._open = [torch.cat([torch.empty(0, self.width, device=self.device), *self._open])]
        for place in range(self._written):
            yield self._read(place).to(self.device)
        yield from self._open

    def _write(self, block: Tensor) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
                weakref.finalize(self, self._file.close)
            self._file.seek(0, 2)
            self._file.write(block.cpu().numpy().data)
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"features of images in the temporary folder {tempfile.gettempdir()}: "
                f"{reason(error)}; set TMPDIR to a folder with more room"
            ) from error
        self._written += 1

    def _read(self, place: int) -> Tensor:
        assert self._file is not None
        block = torch.empty(BLOCK, self.width)
        self._file.seek(place * block.nbytes)
        self._file.readinto(block.numpy().data)  # type: ignore[attr-defined]
        return block


@dataclass(frozen=True)
class Joined:
    """The rows of several side by side, [n, sum of widths]; they come in equal blocks."""

    parts: Sequence[Iterable[Tensor]]

    def __iter__(self) -> Iterator[Tensor]:
        for blocks in zip(*self.parts, strict=True):
            yield torch.cat(blocks, dim=1)


@dataclass(frozen=True)
class Standardised:
    """Rows [n, D] less `mean` [D], over `deviation` [D]."""

    rows: Iterable[Tensor]
    mean: Tensor
    deviation: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        for block in self.rows:
            yield (block - self.mean) / self.deviation


def with_labels(rows: Iterable[Tensor], labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each block of rows with its labels, of `labels` int64 [n]."""
    start = 0
    for block in rows:
        yield block, labels[start : start + len(block)]
        start += len(block)
