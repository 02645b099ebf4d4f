"""Runs what a plan still lacks on Ray, then turns the run folder into verdicts and a report."""

import contextlib
import fcntl
import functools
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dashboards.study.report import write_figures, write_report
from dashboards.tables.reading import StudyRun, read_study, write_results, write_verdicts
from orchestrator import interrupt
from orchestrator.driver.progress import StudyProgress
from orchestrator.lock import write_lock
from orchestrator.plan import Plan, Trial
from orchestrator.resources import DRIVER_CPUS, Placement, place
from orchestrator.retry import ATTEMPTS
from orchestrator.tracking.mirror import Mirror, MirrorError, tracking_uri
from trainers.data.image_set import CACHE, ImageSet
from trainers.errors import RootError
from trainers.runs.trial import TrialFolder


def open_root(root: Path) -> Path:
    """`root`, made if need be. Raises RootError when it cannot be written."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise RootError(
            f"run root {root} cannot be written ({error.strerror}); choose another with --root"
        ) from error
    return root


@contextlib.contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Hold a study's folder. Raises RootError when another `dinolab run` is at it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".driver").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RootError(
                f"{folder} is being run by another dinolab; wait for it, or stop it first"
            ) from None
        yield


def run_study(
    plan: Plan, images: ImageSet, root: Path, *, console: Console, live: bool
) -> StudyRun:
    """Train what is missing, and write results, verdicts and report; returns the run as read.

    Raises RootError or InputError before anything is written when it cannot start, and
    KeyboardInterrupt when interrupted: what was finished stays, and the next call goes on.
    """
    folder = open_root(root) / plan.study.name
    uri = tracking_uri(root)
    mirror = Mirror(uri, plan.study.name, root)
    with only_driver(folder):
        write_lock(plan, images, folder)
        reused = _reuse(plan, root, folder)
        missing = plan.missing(folder)
        already = len(plan.trials) - len(missing)
        if not missing:
            console.print(
                f"all {len(plan.trials)} runs are finished: nothing to train", highlight=False
            )
        elif already:
            note = f" ({reused} taken from other studies of this root)" if reused else ""
            console.print(
                f"{already} of {len(plan.trials)} runs are finished{note}: "
                f"training the other {len(missing)}",
                highlight=False,
            )
        shown = _Mirrored(mirror, console)
        for trial in plan.trials:
            if trial not in missing:
                shown.sync(trial, folder)
        if missing:
            _train(missing, plan, folder, root, shown, console=console, live=live)
        return conclude(folder, shown)


def conclude(folder: Path, shown: "_Mirrored | None" = None) -> StudyRun:
    """Write results.parquet, verdicts.json, figures and report.html from the run folder."""
    study = read_study(folder)
    write_results(study)
    write_verdicts(folder)
    artifacts = [write_report(folder), *write_figures(folder)]
    if shown is not None:
        files = [folder / name for name in ("study.lock.json", "results.parquet", "verdicts.json")]
        whole = all(run.status in ("finished", "collapsed") for run in study.runs.values())
        shown.finish(study, [*files, *artifacts], whole)
    return study


def _reuse(plan: Plan, root: Path, folder: Path) -> int:
    """Copy finished trials of other studies in the same root; returns how many."""
    reused = 0
    for trial in plan.missing(folder):
        for result in root.glob(f"*/trials/{trial.key}/result.json"):
            place_of_copy = folder / "trials" / trial.key
            with tempfile.TemporaryDirectory(dir=folder, prefix=".copy-") as scratch:
                copy = Path(scratch) / trial.key
                shutil.copytree(result.parent, copy, ignore=shutil.ignore_patterns("lock"))
                shutil.rmtree(place_of_copy, ignore_errors=True)
                place_of_copy.parent.mkdir(exist_ok=True)
                copy.replace(place_of_copy)
            reused += 1
            break
    return reused


class _Mirrored:
    """The mirror, which may fail at any time without stopping the study: it says so once."""

    def __init__(self, mirror: Mirror, console: Console) -> None:
        self.mirror = mirror
        self.console = console
        self.broken = False

    def _try(self, work: Any, *arguments: Any) -> None:
        if self.broken:
            return
        try:
            work(*arguments)
        except MirrorError as error:
            self.broken = True
            self.console.print(
                f"MLflow store {self.mirror.uri} does not answer "
                f"({str(error).splitlines()[0][:120]}); training goes on, nothing is lost: "
                "run the same command again when it is back",
                markup=False,
            )

    def sync(self, trial: Trial, folder: Path) -> None:
        """Mirror a trial for each arm that it belongs to."""
        for arm in trial.arms:
            trial_folder = TrialFolder(folder / "trials" / trial.key)
            self._try(self.mirror.sync, arm, trial.seed, trial_folder)

    def finish(self, study: StudyRun, artifacts: Sequence[Path], whole: bool) -> None:
        """Mirror what concerns arms and the study."""
        self._try(self.mirror.finish, study.table, study.lock, artifacts, whole)


def _train(
    missing: Sequence[Trial],
    plan: Plan,
    folder: Path,
    root: Path,
    shown: _Mirrored,
    *,
    console: Console,
    live: bool,
) -> None:
    """Let Ray Tune run the missing trials."""
    # Imported here: half of what `dinolab` does needs no Ray, whose import takes seconds.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    import ray
    from ray import tune

    from orchestrator.driver import worker
    from orchestrator.driver.watcher import Watcher

    with _ray(console):
        cluster = ray.cluster_resources()
        placement = place(plan.study.resources, cluster.get("CPU", 0.0), cluster.get("GPU", 0.0))
        is_group = placement.workers > 1
        run = functools.partial(
            worker.run_group if is_group else worker.run_alone, placement=placement
        )
        run.__name__ = "trial"  # type: ignore[attr-defined]
        tune_storage = folder / ".ray"
        assignments = {
            trial.key: worker.Assignment(
                folder=str((folder / "trials" / trial.key).resolve()),
                config=trial.config.model_dump_json(),
                cache=str((root / CACHE).resolve()),
            )
            for trial in missing
        }
        with StudyProgress(
            console, name=plan.study.name, trials=len(missing), live=live
        ) as progress:
            watcher = Watcher(missing, folder, progress, lambda one: shown.sync(one, folder))
            tuner = tune.Tuner(
                tune.with_resources(run, _trial_resources(placement)),
                param_space={"trial": tune.grid_search(list(assignments.values()))},
                tune_config=tune.TuneConfig(
                    max_concurrent_trials=placement.concurrent, reuse_actors=not is_group
                ),
                run_config=tune.RunConfig(
                    name="trials",
                    storage_path=str(tune_storage.resolve()),
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
                    callbacks=[watcher],
                ),
            )
            try:
                tuner.fit()
                interrupt.check()
            finally:
                shutil.rmtree(tune_storage, ignore_errors=True)


def _trial_resources(placement: Placement) -> dict[str, float]:
    if placement.workers > 1:
        return {"cpu": DRIVER_CPUS}
    return {"cpu": placement.cpus_per_worker, "gpu": placement.gpus_per_worker}


@contextlib.contextmanager
def _ray(console: Console) -> Iterator[None]:
    """The cluster at RAY_ADDRESS, or a Ray of our own that leaves nothing behind."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    import ray

    address = os.environ.get("RAY_ADDRESS")
    with tempfile.TemporaryDirectory(prefix="dinolab-", ignore_cleanup_errors=True) as scratch:
        if address:
            console.print(f"using the Ray cluster at {address}", highlight=False)
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **_code(address))
        else:
            # Without a token given, Ray writes one into the home directory.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=200 * 2**20,
                _temp_dir=scratch,
            )
        interrupt.listen()
        try:
            yield
        finally:
            ray.shutdown()


def _code(address: str) -> dict[str, Any]:
    """Our own packages for the cluster's workers, unless a Ray job ships them already."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    home = Path(__file__).parent.parent.parent
    packages = ("trainers", "ablations", "dashboards", "orchestrator")
    return {"runtime_env": {"py_modules": [str(home / name) for name in packages]}}
