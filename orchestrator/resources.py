"""Trial + cluster -> what each trial gets and how many run at once; pure."""

from dataclasses import dataclass

from ablations.study.schema import Resources
from trainers.errors import InputError

DRIVER_CPUS = 0.01
"""Share of a CPU held by the process that watches a worker group; workers get the rest."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What each worker of a trial gets, and how many trials run at once."""

    workers: int
    cpus_per_worker: int
    gpus_per_worker: int
    concurrent: int


def place(resources: Resources, cpus: float, gpus: float) -> Placement:
    """Fit trials into a cluster of that many CPUs and GPUs.

    Raises InputError when not even one trial fits.
    """
    uses_gpu = resources.device == "gpu" or (resources.device == "auto" and gpus >= 1)
    gpus_per_worker = 1 if uses_gpu else 0
    needed_cpus = resources.workers * resources.cpus_per_worker
    needed_gpus = resources.workers * gpus_per_worker
    concurrent = int(cpus // needed_cpus)
    if needed_gpus:
        concurrent = min(concurrent, int(gpus // needed_gpus))
    if concurrent < 1:
        without_gpu = " or resources.device: cpu" if needed_gpus > gpus else ""
        raise InputError(
            f"a trial needs {needed_cpus} CPUs and {needed_gpus} GPUs, the cluster has {cpus:g} "
            f"and {gpus:g}; ask for fewer workers or CPUs a worker (resources, --workers)"
            + without_gpu
        )
    return Placement(
        workers=resources.workers,
        cpus_per_worker=resources.cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        concurrent=concurrent,
    )
