"""Trial + cluster -> what each trial gets and how many run at once; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from ablations.study.schema import Resources
from trainers.errors import InputError

DRIVER_CPUS = 0.001
"""Share of a CPU held by the process that watches a worker group."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What each worker of a trial gets, and how many trials run at once."""

    workers: int
    cpus_per_worker: int
    gpus_per_worker: int
    concurrent: int

    @property
    def group_cpus(self) -> float:
        """CPUs that a worker of a group asks for, so that all watchers fit beside it on a node."""
        return self.cpus_per_worker - min(self.concurrent * DRIVER_CPUS, 0.5)


def place(
    resources: Resources,
    cpus: float,
    gpus: float,
    nodes: Sequence[tuple[float, float]] | None = None,
) -> Placement:
    """Fit trials into a cluster of that many CPUs and GPUs.

    `nodes` are the CPUs and GPUs of each machine, of one with all of them if not given: a worker
    lies on one. Raises InputError when not even one trial fits.
    """
    uses_gpu = resources.device == "gpu" or (resources.device == "auto" and gpus >= 1)
    gpus_per_worker = 1 if uses_gpu else 0
    needed_cpus = resources.workers * resources.cpus_per_worker
    needed_gpus = resources.workers * gpus_per_worker
    held = 0
    for node_cpus, node_gpus in [(cpus, gpus)] if nodes is None else nodes:
        fit = int(node_cpus // resources.cpus_per_worker)
        held += min(fit, int(node_gpus)) if uses_gpu else fit
    concurrent = held // resources.workers
    if concurrent < 1:
        spread = f" on {len(nodes)} machines" if nodes and len(nodes) > 1 else ""
        without_gpu = " or resources.device: cpu" if needed_gpus > gpus else ""
        raise InputError(
            f"a trial needs {needed_cpus} CPUs and {needed_gpus} GPUs, the cluster has {cpus:g} "
            f"and {gpus:g}{spread}; ask for fewer workers or CPUs a worker (resources, --workers)"
            + without_gpu
        )
    return Placement(
        workers=resources.workers,
        cpus_per_worker=resources.cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        concurrent=concurrent,
    )
