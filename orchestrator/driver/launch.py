"""Runs what a plan still lacks on Ray, then turns the run folder into verdicts and a report."""

import contextlib
from typing import Any

from rich.console import Console

from dashboards.study.files import write_files
from dashboards.tables.reading import StudyRun
from orchestrator.driver.mirrored import Mirrored
from orchestrator.driver.root import left_behind_text, refuse_old_layout, set_aside_damaged
from orchestrator.driver.tuning import placed, train_missing
from orchestrator.lock import matching_lock, write_lock
from orchestrator.plan import Plan
from trainers.data.image_set import ImageSet
from trainers.system.store import Store


def run_study(
    plan: Plan, images: ImageSet, root: str, store: Store, *, console: Console, live: bool
) -> tuple[StudyRun, dict[str, Any]]:
    """Train what is missing, and write results, verdicts and report; returns run and verdicts.

    Raises RootError or InputError before anything is written when it cannot start, and
    KeyboardInterrupt when interrupted: what was finished stays, and the next call goes on.
    """
    refuse_old_layout(store, plan.study.name)
    earlier = matching_lock(plan, images, store)
    set_aside_damaged(plan, store, console.print)
    missing = plan.missing(store)
    with contextlib.ExitStack() as cluster, Mirrored(plan.study.name, store, console) as shown:
        # Before anything is written: only a cluster itself knows what fits into it.
        placement = (
            cluster.enter_context(placed(plan.study.resources, console)) if missing else None
        )
        write_lock(plan, images, store)
        if left := left_behind_text(plan, store, earlier):
            console.print(f"note: {left}")
        already = len(plan.trials) - len(missing)
        if not missing:
            console.print(f"all {len(plan.trials)} runs are finished: nothing to train")
        elif already:
            console.print(
                f"{already} of {len(plan.trials)} runs are finished: "
                f"training the other {len(missing)}"
            )
        for trial in plan.trials:
            if trial not in missing:
                shown.sync(trial.key, trial.arms, trial.seed)
        if missing and placement:
            train_missing(missing, plan, root, store, shown, placement, console=console, live=live)
        cluster.close()
        return conclude(store, plan.study.name, shown)


def conclude(
    store: Store, name: str, shown: Mirrored | None = None
) -> tuple[StudyRun, dict[str, Any]]:
    """Write results.parquet, verdicts.json, figures and report.html from the run root.

    Returns the run as read and its verdicts as judged, once each.
    """
    study, verdicts, _ = write_files(store, name)
    if shown is not None:
        shown.finish(study)
    return study, verdicts
