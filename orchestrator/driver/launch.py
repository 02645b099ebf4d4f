"""Runs what a plan still lacks on Ray, then turns the run folder into verdicts and a report."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ablations.stated import lines_of, stated
from orchestrator.driver.cluster import RESTARTS, Cluster, address_given
from orchestrator.driver.machines import refuse_blind
from orchestrator.driver.mirrored import Mirrored
from orchestrator.driver.root import damaged_trials, left_behind_text, set_aside_damaged
from orchestrator.driver.tuning import ALL_OF_IT, Share, placed, train_missing
from orchestrator.plan import Plan, Trial
from orchestrator.registration import Statement
from orchestrator.witness import witness
from trainers.data.image_set import ImageSet
from trainers.errors import ClusterError
from trainers.system.store import Store

if TYPE_CHECKING:
    from dashboards.tables.reading import StudyRun


def run_study(
    plan: Plan,
    images: ImageSet,
    root: str,
    store: Store,
    *,
    console: Console,
    live: bool,
    cluster: Cluster,
    share: Share = ALL_OF_IT,
    chosen: Callable[[Trial], bool] = lambda _: True,
    witnessing: str | None = None,
    amending: str = "",
) -> "tuple[StudyRun, dict[str, Any]]":
    """Register the study, train what is missing and `chosen`, write results, verdicts and report.

    `cluster` may have been started already. `witnessing` is a command that is shown the
    registration before anything is trained. `amending` is why a change is stated here and now, if
    there is one; without it a changed study is refused. Returns the study as read and its verdicts.

    Raises RootError or InputError before anything is written when it cannot start, and
    KeyboardInterrupt when interrupted: what was finished stays, and the next call goes on. Raises
    ClusterError when the cluster is lost; a Ray of our own is started again.
    """
    statement = Statement(plan, images, store)
    if amending:
        statement.refuse_lock()
    else:
        statement.refuse_unregistered()
    damaged = damaged_trials(plan, store)
    unfinished = plan.missing(store, damaged)
    missing = [trial for trial in unfinished if chosen(trial)]
    if plan.study.design and statement.chain:
        from orchestrator.driver.needed import Needed

        missing = missing if Needed(plan, missing, store)({}) else []
    with contextlib.ExitStack() as on_cluster, Mirrored(plan.study.name, store, console) as shown:
        # Before anything is written: only a cluster itself knows what fits into it.
        resources = plan.study.resources
        where = (
            on_cluster.enter_context(placed(resources, share, cluster, console))
            if missing
            else None
        )
        if where and address_given():
            sources = sorted({trial.config.data.source for trial in missing})
            refuse_blind(root, store, sources, resources, where.placement, console)
        set_aside_damaged(damaged, store, console.print)
        is_amended = bool(amending and statement.changes)
        entry = statement.amend(amending) if is_amended else statement.register()
        console.print(f"registration {entry.number} of study {entry.study}: sha256 {entry.digest}")
        for line in lines_of(stated(statement.chain)):
            console.print(line)
        if witnessing:
            console.print(f"witnessed: {witness(entry, store, witnessing)}")
        if left := left_behind_text(unfinished, store, statement.chain):
            console.print(f"note: {left}")
        sequential = plan.study.design is not None
        if line := _to_do(len(plan.trials), len(unfinished), len(missing), sequential):
            console.print(line)
        lacking = {trial.key for trial in missing}
        for trial in plan.trials:
            if trial.key not in lacking:
                shown.sync(trial.key, trial.arms, trial.seed)
        starts = 0
        while missing and where:
            try:
                train_missing(
                    missing, plan, root, store, shown, where,
                    registration=entry.digest, console=console, live=live,
                )  # fmt: skip
                break
            except ClusterError as error:
                starts += 1
                if address_given() or starts > RESTARTS:
                    raise ClusterError(
                        f"{error}; nothing is lost: the same command goes on from here"
                    ) from error
                console.print(f"note: {error}; it is started again, and trials go on from there")
                on_cluster.close()
                missing = [trial for trial in plan.missing(store) if chosen(trial)]
                again = Cluster(share.leave_cpus)
                where = on_cluster.enter_context(placed(resources, share, again, console))
        # It goes while the report is written.
        cluster.leave()
        return conclude(store, plan.study.name, shown)


def _to_do(trials: int, unfinished: int, missing: int, sequential: bool) -> str:
    """What there is to train, in words; empty when that is all."""
    if not unfinished:
        return f"all {trials} runs are finished: nothing to train"
    finished = f"{trials - unfinished} of {trials} runs are finished"
    if sequential and not missing:
        return f"{finished}, and no other is needed: nothing to train"
    if sequential:
        return f"{finished}: training those of the other {missing} that are needed"
    if missing < unfinished:
        return f"{finished}: training {missing} of the other {unfinished}"
    return f"{finished}: training the other {missing}" if unfinished < trials else ""


def conclude(
    store: Store, name: str, shown: Mirrored | None = None
) -> "tuple[StudyRun, dict[str, Any]]":
    """Write results.parquet, verdicts.json, figures and report.html from the run root.

    Returns the run as read and its verdicts as judged, once each.
    """
    from dashboards.study.files import write_files

    study, verdicts, _ = write_files(store, name)
    if shown is not None:
        shown.finish(study, verdicts)
    return study, verdicts
