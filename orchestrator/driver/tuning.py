"""RAY: Tune runs the trials that are missing."""

import contextlib
import functools
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence

from rich.console import Console

from ablations.study.schema import Resources
from orchestrator import interrupt
from orchestrator.driver.cluster import connected
from orchestrator.driver.mirrored import Mirrored
from orchestrator.driver.progress import StudyProgress
from orchestrator.plan import Plan, Trial
from orchestrator.resources import DRIVER_CPUS, Placement, place
from orchestrator.retry import ATTEMPTS
from trainers.data.cache import cache_in
from trainers.runs.trial import Planned
from trainers.runs.version import code_versions
from trainers.system.store import Store


@contextlib.contextmanager
def placed(resources: Resources, console: Console) -> Iterator[Placement]:
    """What each trial gets on the cluster, which is there until the block ends.

    Raises InputError when not even one trial fits.
    """
    with connected(console):
        import ray

        cluster = ray.cluster_resources()
        nodes = [
            (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
            for node in ray.nodes()
            if node["Alive"]
        ]
        yield place(resources, cluster.get("CPU", 0.0), cluster.get("GPU", 0.0), nodes)


def train_missing(
    missing: Sequence[Trial],
    plan: Plan,
    root: str,
    store: Store,
    shown: Mirrored,
    placement: Placement,
    *,
    console: Console,
    live: bool,
) -> None:
    """Let Ray Tune run the missing trials."""
    # Imported here: half of what `dinolab` does needs no Ray, whose import takes seconds.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    from ray import tune

    from orchestrator.driver import worker
    from orchestrator.driver.watcher import Watcher

    is_group = placement.workers > 1
    run = functools.partial(worker.run_group if is_group else worker.run_alone, placement=placement)
    run.__name__ = "trial"  # type: ignore[attr-defined]
    scratch = tempfile.TemporaryDirectory(prefix="dinolab-tune-", ignore_cleanup_errors=True)
    driver = secrets.token_hex(8)
    assignments = {
        trial.key: worker.Assignment(
            root=root,
            key=trial.key,
            driver=driver,
            config=trial.config.model_dump_json(),
            planned=Planned(key=trial.key, digest=trial.digest, code=dict(code_versions())),
            cache=str(cache_in(root).absolute()),
        )
        for trial in missing
    }
    with StudyProgress(console, name=plan.study.name, trials=len(missing), live=live) as progress:
        watcher = Watcher(
            missing, store, progress, lambda one: shown.sync(one.key, one.arms, one.seed)
        )
        tuner = tune.Tuner(
            tune.with_resources(run, _trial_resources(placement)),
            param_space={"trial": tune.grid_search(list(assignments.values()))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=placement.concurrent, reuse_actors=not is_group
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=scratch.name,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
                callbacks=[watcher],
            ),
        )
        try:
            tuner.fit()
            interrupt.check()
        finally:
            scratch.cleanup()


def _trial_resources(placement: Placement) -> dict[str, float]:
    if placement.workers > 1:
        return {"cpu": DRIVER_CPUS}
    return {"cpu": placement.cpus_per_worker, "gpu": placement.gpus_per_worker}
