"""Trial + machines of a cluster -> what each worker gets, and how many trials run at once; pure."""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablations.study.schema import Resources
from trainers.config import TrainConfig
from trainers.config.size import share_problem
from trainers.errors import InputError

WATCHER_CPUS = 0.001
"""Share of a CPU held by the process that watches a worker group."""

GIB = 2**30

_LISTED = 8
"""Machines that a refusal lists."""

_WHERE = {"STRICT_PACK": "all on one machine", "STRICT_SPREAD": "each on another machine"}

UNLIMITED = 1000
"""How many machines of a kind, and workers of one machine, count where a cluster names no limit."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of a cluster, or a kind of machine that a cluster can add."""

    name: str
    cpus: float
    gpus: float = 0.0
    memory: float = float("inf")
    """bytes that workers may ask for; infinite where a cluster does not say"""
    labels: Mapping[str, str] | None = field(default_factory=dict)
    """None: not known, as of a kind that has no machine yet"""
    count: int = 1
    """how many of a kind can be had"""

    def shown(self, resources: Resources) -> str:
        """What it has of what is asked for, in words."""
        many = f"{self.count} × " if self.count > 1 else ""
        has = [f"{self.cpus:g} CPUs", f"{self.gpus:g} GPUs"]
        if resources.memory_per_worker_gib and self.memory != float("inf"):
            has.append(f"{self.memory / GIB:.3g} GiB")
        known = self.labels or {}
        has += [f"{name}={known[name]}" for name in resources.node_labels if name in known]
        return f"{many}{self.name}: {', '.join(has)}"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What each worker of a trial gets, and how many trials run at once."""

    workers: int
    """the fewest"""
    cpus_per_worker: int
    gpus_per_worker: float
    concurrent: int
    """on the machines that are there; 0 where machines must be added first"""
    attainable: int
    """with all the machines that the cluster can add"""
    memory_per_worker: int = 0
    """bytes asked for; 0: none are"""
    labels: Mapping[str, str] = field(default_factory=dict)
    strategy: str = "PACK"
    """where the workers of one trial lie, as Ray names it"""
    is_elastic: bool = False
    """whether a trial may have more workers than the fewest"""
    group_cpus: float = 0.0
    """CPUs that a worker of a group asks for, so that those who watch groups fit beside it"""

    def asked(self, cpus: float) -> dict[str, float]:
        """Resources of one worker as Ray names them."""
        kinds = {"CPU": cpus, "GPU": self.gpus_per_worker, "memory": float(self.memory_per_worker)}
        return {name: amount for name, amount in kinds.items() if amount}


def place(
    resources: Resources,
    nodes: Sequence[Node],
    addable: Sequence[Node] = (),
    *,
    most: int | None = None,
) -> Placement:
    """Fit trials onto the machines of a cluster, at most `most` at once.

    A worker lies on one machine; the workers of a trial may lie on several, unless the placement
    strategy says that they must, or must not. `addable` are the kinds of machine that the cluster
    adds when they are asked for. Raises InputError, which lists the machines, when not even one
    trial fits, or when workers of a group would share a GPU.
    """
    everything = [*nodes, *addable]
    uses_gpu = resources.device == "gpu" or (
        resources.device == "auto" and any(node.gpus > 0 for node in everything)
    )
    gpus = resources.gpus_per_worker if uses_gpu else 0.0
    if resources.at_most > 1 and 0 < gpus < 1:
        raise InputError(
            f"resources.gpus_per_worker {gpus:g}: the {resources.at_most} workers of one trial "
            "cannot share a GPU; ask for 1 a worker, or for one worker"
        )

    def held(node: Node) -> int:
        return held_by(node, resources, gpus)

    now = trials_held([held(node) for node in nodes], resources)
    later = trials_held([held(node) for node in everything for _ in range(node.count)], resources)
    if later < 1:
        raise InputError(_refusal(resources, gpus, nodes, addable))
    widest = max(held(node) for node in everything)
    limit = UNLIMITED * UNLIMITED if most is None else most
    return Placement(
        workers=resources.workers,
        cpus_per_worker=resources.cpus_per_worker,
        gpus_per_worker=gpus,
        concurrent=min(now, limit),
        attainable=min(later, limit),
        memory_per_worker=round(resources.memory_per_worker_gib * GIB),
        labels=dict(resources.node_labels),
        strategy=resources.placement_strategy,
        is_elastic=resources.is_elastic,
        # As many workers as before fit on each machine, and no more; half a worker's share of what
        # one more would need is left for those who watch.
        group_cpus=resources.cpus_per_worker * (1 - 0.5 / (widest + 1)),
    )


def trials_held(held: Sequence[int], resources: Resources) -> int:
    """How many trials with the fewest workers machines hold that hold so many workers each."""
    workers = resources.workers
    if resources.placement_strategy == "STRICT_PACK":
        return sum(one // workers for one in held)
    trials = sum(held) // workers
    if resources.placement_strategy == "STRICT_SPREAD":
        # Of so many trials a machine takes a worker each, as long as it holds more.
        return bisect.bisect_left(
            range(1, trials + 1),
            True,
            key=lambda many: sum(min(one, many) for one in held) < many * workers,
        )
    return trials


def worker_counts(config: TrainConfig, resources: Resources) -> list[int]:
    """How many workers may train a run, ascending: `workers`, and what else divides its batch."""
    return [
        workers
        for workers in range(resources.workers, min(resources.at_most, config.batch_size) + 1)
        if workers == resources.workers or not share_problem(config, workers)
    ]


def widest(resources: Resources) -> int:
    """Of how many trials with the fewest workers one with the most takes the place."""
    return seats_of(resources.at_most, resources)


def seats_of(workers: int, resources: Resources) -> int:
    """Of how many trials with the fewest workers one with so many takes the place."""
    return math.ceil(workers / resources.workers)


def workers_for(counts: Sequence[int], resources: Resources, free: int, waiting: int) -> int:
    """How many workers the next trial gets, of the `counts` that are possible, ascending.

    `free` is of how many trials with the fewest workers there is place, 1 at least, `waiting` how
    many trials it is for: as many of them as may be run at once, each as wide as then may be.
    """
    seats = max(1, free // max(1, waiting))
    return max(count for count in counts if seats_of(count, resources) <= seats)


def trials_free(free: Sequence[Node], resources: Resources, placement: Placement) -> int:
    """For how many trials with the fewest workers there is room now, each a worker group.

    `free` are the machines with what nobody has of them.
    """
    held = [
        held_by(one, resources, placement.gpus_per_worker, placement.group_cpus) for one in free
    ]
    return trials_held(held, resources)


def held_by(node: Node, resources: Resources, gpus: float, cpus: float = 0.0) -> int:
    """How many workers of `gpus` each a machine holds, and of so many `cpus`, if they are given."""
    asked = resources.node_labels
    if node.labels is not None and any(node.labels.get(k) != v for k, v in asked.items()):
        return 0
    fit = min(node.cpus // (cpus or resources.cpus_per_worker), UNLIMITED)
    if memory := resources.memory_per_worker_gib * GIB:
        fit = min(fit, node.memory // memory)
    if gpus:
        # Whole workers a GPU: a share is never spread over two.
        fit = min(fit, int(node.gpus) * int(1 / gpus + 1e-9))
    return int(fit)


def _refusal(
    resources: Resources, gpus: float, nodes: Sequence[Node], addable: Sequence[Node]
) -> str:
    memory = resources.memory_per_worker_gib
    needs = [f"{resources.cpus_per_worker} CPUs", f"{gpus:g} GPUs"]
    needs += [f"{memory:g} GiB"] if memory else []
    needs += [f"{name}={value}" for name, value in resources.node_labels.items()]
    workers = "1 worker" if resources.workers == 1 else f"{resources.workers} workers"
    where = _WHERE.get(resources.placement_strategy, "each on one machine")
    has = " | ".join(node.shown(resources) for node in nodes[:_LISTED]) or "no machine"
    more = f" and {len(nodes) - _LISTED} more" if len(nodes) > _LISTED else ""
    could = " | ".join(node.shown(resources) for node in addable)
    return (
        f"a trial needs {workers} of {', '.join(needs)}, {where}, and the cluster has "
        f"{has}{more}{f'; it can add {could}' if could else ''}; ask for fewer workers, or for "
        f"less a worker (resources, --workers){' or resources.device: cpu' if gpus else ''}"
    )


def share_of_this_machine(cpus: int, left: int) -> int:
    """CPUs for trials on a machine of `cpus` where `left` are for others.

    Raises InputError when none would be.
    """
    if left >= cpus:
        raise InputError(
            f"--leave-cpus {left}: this machine has {cpus} CPUs, and a trial needs one; leave at "
            f"most {cpus - 1}"
        )
    return cpus - left


def node_of(name: str, resources: Mapping[str, Any], labels: Mapping[str, str] | None) -> Node:
    """A machine from its resources as Ray names them."""
    return Node(
        name=name,
        cpus=float(resources.get("CPU", 0.0)),
        gpus=float(resources.get("GPU", 0.0)),
        memory=float(resources.get("memory", float("inf"))),
        labels=labels,
    )
