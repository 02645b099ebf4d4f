"""RAY: the last lines that a worker has printed, also of one that has died."""

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

KEPT_BYTES = 2**14
"""How much of the end of each stream is kept."""

_RAYS_OWN = (":job_id:", ":task_name:", ":actor_name:")
"""How lines begin that Ray writes into a worker's output."""

_WITHIN_S = 10.0


@dataclass(frozen=True)
class Output:
    """Where Ray keeps what a process prints, from a moment on; travels by pickle."""

    node: str
    files: tuple[tuple[str, int], ...]
    """paths on that node, and their lengths at that moment"""

    @classmethod
    def of_this_process(cls) -> Self:
        """What is printed here from now on; of no file where there is none."""
        files = []
        for stream in (sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()  # type: ignore[union-attr]
                path = Path(f"/proc/self/fd/{stream.fileno()}").readlink()  # type: ignore[union-attr]
                if path.is_file():
                    files.append((str(path), path.stat().st_size))
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
        return cls(node, tuple(files))

    def tail(self) -> str:
        """The last lines of it, read on its node."""
        parts = []
        for name, start in self.files:
            with contextlib.suppress(OSError), Path(name).open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(start, end - KEPT_BYTES))
                parts += file.read().decode("utf-8", "replace").splitlines()
        return "".join(f"{line}\n" for line in parts if not line.startswith(_RAYS_OWN))

    def fetched(self) -> str:
        """The same, read from anywhere; empty where the node is gone."""
        if self.node == ray.get_runtime_context().get_node_id():
            return self.tail()
        there = NodeAffinitySchedulingStrategy(node_id=self.node, soft=False)
        task = ray.remote(num_cpus=0, max_retries=0)(Output.tail)
        try:
            found = task.options(scheduling_strategy=there).remote(self)
            return str(ray.get(found, timeout=_WITHIN_S))
        except Exception:  # noqa: BLE001 (whatever Ray raises: the output is not to be had)
            return ""
