"""What a part is told."""

import dataclasses
import multiprocessing
import os
import time
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.contest import Contender, Context, Outcome, hold
from benchmarks.setting import LEAST, SMALL, VIT_SMALL, Setting

PRELOADED = (
    "benchmarks.our_runs",
    "benchmarks.original",
    "benchmarks.measure",
    "benchmarks.evaluation",
    "benchmarks.gpu.parts",
    "torchvision.datasets",
)
"""What is imported once instead of in every process. None of it may ask for a GPU when imported:
processes forked afterwards could not use one."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """The fastest way of ours to make a step."""

    knobs: dict[str, Any]
    batch: int
    """images a step that fit on the card beside a peer"""
    rate: float
    """images/s; 0 when it is not known"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Where a part works, with what, and until when."""

    device: str
    """`cuda`, or `cpu` for a toy run"""
    original: str | None
    """folder of the original implementation"""
    scratch: Path
    """for files that nobody needs afterwards; shared by all parts"""
    folder: Path
    """for files that are a result"""
    deadline: float
    """by time.monotonic, which all processes of a machine share"""
    best: Best
    """what the step's part found, for those after it"""
    preloaded: tuple[str, ...] = PRELOADED
    """modules that processes find imported; one that is not installed is left out"""

    @property
    def toy(self) -> bool:
        """Whether this is a run at toy size, without a GPU."""
        return self.device != "cuda"

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    @property
    def threads(self) -> int:
        """CPU threads of every contender."""
        return 1 if self.toy else len(os.sched_getaffinity(0))

    @property
    def fast(self) -> dict[str, Any]:
        """Our knobs that make a step faster, as they are on; toy: none that compiles."""
        return {
            name: on
            for name, on in ours.SPEED_KNOBS.items()
            if not self.toy or "compile" not in name
        }

    @property
    def large(self) -> Setting:
        """ViT-S/16 with 2×224 + 8×96 and 65,536 prototypes in bf16; toy: the least there is.

        Its batch is the one that fits, once that is known.
        """
        return LEAST if self.toy else dataclasses.replace(VIT_SMALL, batch=self.best.batch)

    @property
    def small(self) -> Setting:
        """A small model in fp32."""
        return LEAST if self.toy else SMALL

    @property
    def context(self) -> Context:
        """Processes are forked from one that has imported much, and has never used a GPU."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(self.preloaded))
        return context

    def prepare(self) -> None:
        """Let what processes are forked from begin to import, while this one does something else.

        Only the first one of a part would wait for it.
        """
        multiprocessing.set_forkserver_preload(list(self.preloaded))
        forkserver.ensure_running()

    @staticmethod
    def words(change: dict[str, Any]) -> str:
        """Our speed knobs that are on, as they are shown."""
        on = [name.removeprefix("compute.") for name, value in change.items() if value]
        return " + ".join(on) or "no speed knobs"

    def turns(
        self, contenders: list[Contender], *, rounds: int = 5, steps: int = 5, warmup: int = 3
    ) -> list[Outcome]:
        """`hold` these; at toy size for a round of a step, or of what a contender asks for.

        No round is held again: the work is on the card, and minutes are few.
        """
        if self.toy:
            rounds = steps = 1
        return hold(
            contenders,
            rounds=rounds,
            steps=steps,
            warmup=warmup,
            threads=self.threads,
            context=self.context,
            patience=1,
        )
