"""RAY: Tune runs the trials that are missing."""

import contextlib
import functools
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ablations.study.schema import Resources
from orchestrator import interrupt
from orchestrator.driver.cluster import Cluster, RayGone, address_given
from orchestrator.driver.mirrored import Mirrored
from orchestrator.driver.nodes import nodes_addable, nodes_there
from orchestrator.driver.progress import StudyProgress
from orchestrator.driver.standings import Launched, Standings
from orchestrator.plan import Plan, Trial
from orchestrator.resources import WATCHER_CPUS, Placement, place, widest
from trainers.data.cache import cache_in
from trainers.errors import ClusterError, StoreError
from trainers.runs.attempt import end_lease
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import Planned
from trainers.runs.version import code_versions
from trainers.system.store import Store


@dataclass(frozen=True, kw_only=True)
class Share:
    """How much of what is there a driver takes."""

    max_concurrent: int | None = None
    """trials at once; None: as many as fit"""
    leave_cpus: int = 0
    """CPUs of this machine that are left to others"""


ALL_OF_IT = Share()


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A cluster, and what each trial gets on it."""

    placement: Placement
    resources: Resources
    """with the device that is used"""
    scratch: Path
    """a folder of this process"""
    share: Share
    afterwards: list[Callable[[], None]]
    """what is called once nothing of ours runs on the cluster any more"""


@contextlib.contextmanager
def placed(
    resources: Resources, share: Share, cluster: Cluster, console: Console
) -> Iterator[Placed]:
    """What each trial gets on the cluster, which is there until the block ends.

    Raises InputError when not even one trial fits, and ConfigError for a time that is none.
    """
    from orchestrator.driver.moving import waits_s

    waits_s()
    afterwards: list[Callable[[], None]] = []
    try:
        with cluster:
            if address := address_given():
                console.print(f"using the Ray cluster at {address}")
            scratch = cluster.connected()
            there, addable = nodes_there(), nodes_addable(resources)
            placement = place(resources, there, addable, most=share.max_concurrent)
            # A cluster that grows must not change what the trials of a study run on.
            device = "gpu" if placement.gpus_per_worker else "cpu"
            yield Placed(
                placement=placement,
                resources=resources.model_copy(update={"device": device}),
                scratch=scratch,
                share=share,
                afterwards=afterwards,
            )
    finally:
        for action in afterwards:
            action()


_TUNE = {
    # What a driver must know lies in the run root: Tune keeps no files, and decides nothing.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",
    # What it would print, the watcher says in a line.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1e9",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S_AUTOSCALER": "1e9",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def train_missing(
    missing: Sequence[Trial],
    plan: Plan,
    root: str,
    store: Store,
    shown: Mirrored,
    where: Placed,
    *,
    registration: str,
    console: Console,
    live: bool,
) -> None:
    """Let Ray Tune run the missing trials; their results name the `registration`.

    Raises ClusterError when Ray has ended, and StoreError when the run root has failed too often.
    """
    for name, value in _TUNE.items():
        os.environ.setdefault(name, value)
    # Imported here: half of what `dinolab` does needs no Ray, whose import takes seconds.
    from ray import tune

    from dashboards.tables.chain import read_entry
    from dashboards.tables.watched import shown_metrics
    from orchestrator.driver import worker
    from orchestrator.driver.gauges import OPEN, Gauges
    from orchestrator.driver.messages import name_of
    from orchestrator.driver.moving import Moves
    from orchestrator.driver.needed import Needed
    from orchestrator.driver.searching import Room, Scheduled
    from orchestrator.driver.sharing import Sharing, processes_given_up
    from orchestrator.driver.watcher import Watcher

    placement, most = where.placement, where.share.max_concurrent
    run = functools.partial(worker.run, placement=placement)
    run.__name__ = "trial"  # type: ignore[attr-defined]
    driver = secrets.token_hex(8)
    code, cache = dict(code_versions()), str(cache_in(root).absolute())

    def assigned(trial: Trial, launched: Launched) -> worker.Assignment:
        return worker.Assignment(
            root=root,
            key=trial.key,
            driver=driver,
            registration=registration,
            over=launched.over,
            name=name_of(driver, trial.key, launched.since),
            workers=launched.workers,
            avoided=moves.avoided(trial),
            config=trial.config.model_dump_json(),
            planned=Planned(key=trial.key, digest=trial.digest, code=code),
            cache=cache,
        )

    # Of the fewest workers each, as seats are counted.
    seats = widest(where.resources)
    with (
        StudyProgress(console, name=plan.study.name, trials=len(missing), live=live) as progress,
        Sharing(
            where.resources.device,
            lambda: standings.wanted * seats,
            None if most is None else most * seats,
            console.print,
        ) as sharing,
    ):

        def finished(trial: Trial) -> None:
            watcher.tell(trial)

        needed = Needed(plan, missing, store) if plan.study.design else None
        hypotheses = [OPEN] * len(plan.study.hypotheses)
        gauges = Gauges(
            plan.study.name,
            with_loss=bool(shown_metrics(read_entry(store, plan.study.name))[0]),
            verdicts=needed.labels if needed else lambda: hypotheses,
        )
        standings = Standings(
            missing, store, driver, say=console.print, finished=finished, needed=needed
        )
        room = Room(where.resources, placement, most, console.print, sharing.share)
        moves = Moves(where.resources, driver, standings, room.free, console.print)
        watcher = Watcher(
            missing,
            store,
            driver,
            standings,
            room,
            moves,
            progress,
            gauges,
            lambda one: shown.sync(one.key, one.arms, one.seed),
            time_limit_s=where.resources.time_limit_s,
        )
        tuner = tune.Tuner(
            tune.with_resources(
                run,
                lambda given: _trial_resources(given["trial"], placement),
            ),
            tune_config=tune.TuneConfig(
                search_alg=Scheduled(standings, room, assigned, watcher.settle, moves.spare),
                num_samples=-1,
                reuse_actors=where.resources.at_most == 1,
                trial_dirname_creator=lambda one: str(one.trial_id),
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(where.scratch / "tune"),
                verbose=0,
                # Another attempt is another trial of Tune's.
                failure_config=tune.FailureConfig(max_failures=0),
                callbacks=[watcher],
            ),
        )

        def release() -> None:
            for trial in missing:
                if trial.key in standings.launched:
                    with contextlib.suppress(StoreError):
                        end_lease(StoredTrial(store, trial.key), driver, "interrupted")

        where.afterwards.append(release)
        with processes_given_up(lambda: watcher.is_full or moves.needs_room):
            try:
                tuner.fit()
            except RayGone as gone:
                raise ClusterError(str(gone)) from None
        interrupt.check()


def _trial_resources(assignment: Any, placement: Placement) -> Any:
    from ray.tune import PlacementGroupFactory

    from orchestrator.driver.worker import is_group

    if is_group(assignment, placement):
        return PlacementGroupFactory([{"CPU": WATCHER_CPUS}])
    labels: dict[str, Any] = (
        {"bundle_label_selector": [dict(placement.labels)]} if placement.labels else {}
    )
    return PlacementGroupFactory([placement.asked(placement.cpus_per_worker)], **labels)
