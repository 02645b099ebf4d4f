"""Runs what a plan still lacks on Ray, then turns the run folder into verdicts and a report."""

import contextlib
from pathlib import Path
from typing import Any

from rich.console import Console

from ablations.lock import LOCK
from dashboards.study.figures import every_figure
from dashboards.study.report import write_figures, write_report
from dashboards.tables.derived import judged, write_results, write_verdicts
from dashboards.tables.reading import StudyRun, read_study
from orchestrator.driver.mirrored import Mirrored
from orchestrator.driver.root import (
    finished_in,
    left_behind_text,
    only_driver,
    open_root,
    reuse_finished,
    taken_text,
)
from orchestrator.driver.tuning import placed, train_missing
from orchestrator.lock import matching_lock, write_lock
from orchestrator.plan import Plan
from trainers.data.image_set import ImageSet


def run_study(
    plan: Plan, images: ImageSet, root: Path, *, console: Console, live: bool
) -> tuple[StudyRun, dict[str, Any]]:
    """Train what is missing, and write results, verdicts and report; returns run and verdicts.

    Raises RootError or InputError before anything is written when it cannot start, and
    KeyboardInterrupt when interrupted: what was finished stays, and the next call goes on.
    """
    folder = open_root(root) / plan.study.name
    earlier = matching_lock(plan, images, folder)
    is_finished = all(finished_in(root, trial.key) for trial in plan.trials)
    with contextlib.ExitStack() as cluster:
        # Before anything is written: only a cluster itself knows what fits into it.
        placement = (
            None if is_finished else cluster.enter_context(placed(plan.study.resources, console))
        )
        with only_driver(folder):
            shown = Mirrored(plan.study.name, root, console)
            write_lock(plan, images, folder)
            reuse_finished(plan, root, folder)
            if left := left_behind_text(plan, folder, earlier):
                console.print(f"note: {left}")
            missing = plan.missing(folder)
            already = len(plan.trials) - len(missing)
            taken = taken_text(plan, folder)
            note = f" ({taken})" if taken else ""
            if not missing:
                console.print(f"all {len(plan.trials)} runs are finished{note}: nothing to train")
            elif already:
                console.print(
                    f"{already} of {len(plan.trials)} runs are finished{note}: "
                    f"training the other {len(missing)}"
                )
            for trial in plan.trials:
                if trial not in missing:
                    shown.sync(trial, folder)
            if missing and placement:
                train_missing(
                    missing, plan, folder, root, shown, placement, console=console, live=live
                )
            cluster.close()
            return conclude(folder, shown)


def conclude(folder: Path, shown: "Mirrored | None" = None) -> tuple[StudyRun, dict[str, Any]]:
    """Write results.parquet, verdicts.json, figures and report.html from the run folder.

    Returns the run as read and its verdicts as judged, once each.
    """
    study = read_study(folder)
    verdicts = judged(study)
    figures = every_figure(study, verdicts)
    artifacts = [
        folder / LOCK,
        write_results(study),
        write_verdicts(study, verdicts),
        write_report(study, verdicts, figures),
        *write_figures(study, figures),
    ]
    if shown is not None:
        whole = all(run.status in ("finished", "collapsed") for run in study.runs.values())
        shown.finish(study, artifacts, whole)
    return study, verdicts
