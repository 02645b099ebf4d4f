"""Commands on studies: run, retry, report, mirror."""

import functools
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from orchestrator import interrupt
from orchestrator.cli.exit_codes import FAILED, INTERRUPTED
from orchestrator.cli.options import (
    DEFAULT_ROOT,
    AblationsOption,
    DataOption,
    JsonOption,
    LeaveCpusOption,
    MaxConcurrentOption,
    MoveStragglersOption,
    OnlyOption,
    QuietOption,
    RootOption,
    ScaleOption,
    SeedsOption,
    StudyArgument,
    StudyOrFolderArgument,
    TimeLimitOption,
    WitnessOption,
    WorkersOption,
    absolute_root,
)
from orchestrator.cli.rendering import make_console, open_with_progress, show_verdicts
from trainers.errors import InputError

if TYPE_CHECKING:
    from ablations.study.study import Study
    from dashboards.tables.reading import StudyRun
    from orchestrator.plan import Plan, Trial
    from trainers.config import DataConfig
    from trainers.data.image_set import ImageSet
    from trainers.system.store import Store


class Form(StrEnum):
    """As what a figure or a table is written."""

    PDF = "pdf"
    PNG = "png"
    SVG = "svg"
    CSV = "csv"
    LATEX = "latex"


FIGURE_FORMS = (Form.PDF, Form.PNG, Form.SVG)
TABLE_FORMS = (Form.CSV, Form.LATEX)


def load(
    path: Path,
    data: str | None,
    workers: str | None,
    ablations: list[Path] | None,
    scale: str | None,
) -> "Study":
    from ablations.study.loading import load_study
    from orchestrator.cli.choosing import chosen_workers

    return load_study(path, data, ablations or (), scale, chosen_workers(workers))


def planned(
    study: "Study", root: str, console: Console, live: bool, *, listed: str = ""
) -> "tuple[Plan, ImageSet]":
    """The plan of a study, and the images of its base; `listed` as in `open_with_progress`."""
    from orchestrator.plan import make_plan

    def opened(data: "DataConfig") -> "ImageSet":
        return open_with_progress(data, root, console, live, listed=listed)

    images = opened(study.base.data)
    return make_plan(study, images, opened), images


def run(
    study: StudyArgument,
    root: RootOption = DEFAULT_ROOT,
    data: DataOption = None,
    workers: WorkersOption = None,
    ablations: AblationsOption = None,
    scale: ScaleOption = None,
    only: OnlyOption = None,
    seeds: SeedsOption = None,
    max_concurrent: MaxConcurrentOption = None,
    leave_cpus: LeaveCpusOption = 0,
    time_limit: TimeLimitOption = None,
    move_stragglers: MoveStragglersOption = False,
    witness: WitnessOption = None,
    quiet: QuietOption = False,
    json_: JsonOption = False,
) -> None:
    """Run a study: register it, train what is missing, then verdicts, report and MLflow.

    Before anything is trained the study is registered in the run root, and the digest of that is
    printed. A study that was changed since is refused: `dinolab amend` states the change.
    Runs on this machine, or on the Ray cluster at RAY_ADDRESS. Finished runs are never trained
    again: after an interruption the same command goes on where it stopped. MLflow is written to
    ROOT/mlflow.db, or to the server at MLFLOW_TRACKING_URI, without which a root on object storage
    has none. With --json the words go to standard error, and standard output is one JSON object:
    runs, the report's address, and what verdicts.json has.
    """
    if witness is not None:
        from orchestrator.witness import refuse_no_witness

        refuse_no_witness(witness)
    checked, chosen = asked(
        study, data, workers, ablations, scale, only, seeds, time_limit, move_stragglers
    )
    console = make_console(aside=json_)
    root, store = usable_root(root, console)
    found = trained(
        checked, root, store, console, lambda _: chosen, max_concurrent, leave_cpus,
        quiet=quiet, witnessing=witness,
    )  # fmt: skip
    show_verdicts(*found, root, console, as_json=json_)


def asked(
    study: Path,
    data: str | None,
    workers: str | None,
    ablations: list[Path] | None,
    scale: str | None,
    only: list[str] | None,
    seeds: str | None,
    time_limit: float | None,
    move_stragglers: bool,
) -> "tuple[Study, Callable[[Trial], bool]]":
    """The study that the options of `run` ask for, and which of its trials they choose."""
    checked = load(study, data, workers, ablations, scale)
    changes: dict[str, Any] = {} if time_limit is None else {"time_limit_s": time_limit}
    changes |= {"move_stragglers": True} if move_stragglers else {}
    checked = replace(checked, resources=checked.resources.model_copy(update=changes))
    from orchestrator.cli.choosing import chosen_trials

    return checked, chosen_trials(checked.arms, checked.seeds, only, seeds)


def retry(
    study: StudyArgument,
    root: RootOption = DEFAULT_ROOT,
    data: DataOption = None,
    workers: WorkersOption = None,
    ablations: AblationsOption = None,
    scale: ScaleOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train the runs of a study again whose last attempt failed, and no others.

    `run` does that too, beside what else is missing. `dinolab logs` says why each has failed.
    """
    from dashboards.tables.board import progress_of
    from trainers.runs.stored_trial import StoredTrial

    def failed(store: "Store") -> "Callable[[Trial], bool]":
        @functools.cache
        def has_failed(key: str) -> bool:
            # As it was when asked first: later it is being tried again.
            return progress_of(StoredTrial(store, key)).state == "failed"

        return lambda trial: has_failed(trial.key)

    checked = load(study, data, workers, ablations, scale)
    console = make_console()
    root, store = usable_root(root, console)
    found = trained(checked, root, store, console, failed, None, 0, quiet=quiet)
    show_verdicts(*found, root, console)


def usable_root(root: str, console: Console) -> "tuple[str, Store]":
    """The run root, which is made if need be, once Ray and MLflow can be had.

    Raises InputError, one line.
    """
    from orchestrator.driver.cluster import check_cluster
    from orchestrator.tracking.where import folder_of, is_yet_to_be_made
    from trainers.system.store import open_store

    root = absolute_root(root, console)
    check_cluster()
    if not is_yet_to_be_made(folder := folder_of(root)):
        from orchestrator.tracking.store import check_store

        check_store(folder)
    return root, open_store(root, make=True)


def trained(
    study: "Study",
    root: str,
    store: "Store",
    console: Console,
    choosing: "Callable[[Store], Callable[[Trial], bool]]",
    max_concurrent: int | None,
    leave_cpus: int,
    *,
    quiet: bool,
    witnessing: str | None = None,
    amending: str = "",
    with_notes: bool = True,
) -> "tuple[StudyRun, dict[str, Any]]":
    """Run a study, of which it trains what `choosing` chooses: as read then, and its verdicts.

    Root and store are those of `usable_root`; `witnessing` and `amending` as in `run_study`.
    Raises typer.Exit, 130, when it is interrupted, and says how far it has come.
    """
    from ablations.registration import REGISTRATIONS, study_folder
    from dashboards.tables.chain import refuse_old_layout
    from orchestrator.driver.cluster import Cluster
    from orchestrator.pilot import refuse_pilot_seeds

    live = console.is_terminal and not quiet
    refuse_old_layout(store, study.name)
    refuse_pilot_seeds(study, store)
    with Cluster(leave_cpus) as cluster:
        # Not for a study that has its report: most likely there is nothing to train.
        if store.get(f"{study_folder(study.name)}/verdicts.json") is None:
            cluster.start()
        from orchestrator.cli.notes import notes_on
        from orchestrator.driver.launch import run_study
        from orchestrator.driver.tuning import Share

        plan, images = planned(study, root, console, live, listed=f", all in {REGISTRATIONS}/")
        for note in notes_on(plan) if with_notes else ():
            console.print(f"note: {note}")
        console.print(
            f"study {study.name}: {len(study.arms)} arms × {len(study.seeds)} seeds = "
            f"{'at most ' if study.design else ''}{len(plan.trials)} runs on {len(images)} images",
        )
        try:
            share = Share(max_concurrent=max_concurrent, leave_cpus=leave_cpus)
            return run_study(
                plan, images, root, store, console=console, live=live, cluster=cluster,
                share=share, chosen=choosing(store), witnessing=witnessing, amending=amending,
            )  # fmt: skip
        except KeyboardInterrupt:
            left = len(plan.missing(store))
            interrupt.tell(
                f"interrupted: {len(plan.trials) - left} of {len(plan.trials)} runs are finished; "
                "the same command goes on from here",
                console.print,
            )
            raise typer.Exit(INTERRUPTED) from None


def report(
    study: StudyOrFolderArgument,
    root: RootOption = DEFAULT_ROOT,
    ablations: AblationsOption = None,
    scale: ScaleOption = None,
    figure: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Write only this figure.", show_default=False),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Write only this table.", show_default=False),
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option(
            "--format",
            help="Of a figure pdf (the default), png, svg; of a table csv (the default), latex.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Rebuild results, verdicts and report from a run folder; trains nothing.

    With --figure or --table only that is written, for a paper, into figures/ or tables/ of the run
    folder.
    """
    from trainers.system.store import open_store

    _check_form(figure, table, form)
    console = make_console()
    root, name = in_root(study, absolute_root(root, console), ablations, scale)
    if figure is not None or table is not None:
        from dashboards.study.files import write_one

        key = write_one(open_store(root), name, figure, table, form and form.value)
        console.print(f"{root}/{key}", soft_wrap=True)
        return
    from dashboards.study.files import write_files

    made, verdicts, _ = write_files(open_store(root), name)
    show_verdicts(made, verdicts, root, console)


def _check_form(figure: str | None, table: str | None, form: Form | None) -> None:
    """Raises InputError where the options of a paper do not go together."""
    if figure is not None and table is not None:
        raise InputError("--figure and --table: give one of them")
    if form is None:
        return
    if figure is None and table is None:
        raise InputError(f"--format {form.value} needs --figure or --table")
    what, allowed = ("figure", FIGURE_FORMS) if table is None else ("table", TABLE_FORMS)
    if form not in allowed:
        raise InputError(f"--format {form.value} is of no {what} (allowed: {', '.join(allowed)})")


def mirror(
    study: StudyOrFolderArgument,
    root: RootOption = DEFAULT_ROOT,
    ablations: AblationsOption = None,
    scale: ScaleOption = None,
) -> None:
    """Make the mirror of a study in MLflow whole, or anew, from a run root; trains nothing.

    `run` does that by itself: this is for a mirror that was deleted, or that lies on a server that
    was away, or on another one.
    """
    from dashboards.tables.derived import judged
    from dashboards.tables.reading import read_study
    from orchestrator.driver.mirrored import Mirrored
    from orchestrator.tracking.store import check_store, shown, tracking_uri
    from trainers.system.store import open_store

    console = make_console()
    root, name = in_root(study, absolute_root(root, console), ablations, scale)
    store = open_store(root)
    uri = tracking_uri(store.local)
    # Before the study is read, which keeps tables of its trials.
    check_store(store.local)
    run = read_study(store, name)
    mirrored = Mirrored(name, store, console)
    trials = run.entry.trials
    for trial in {one.key: one for one in trials}.values():
        mirrored.sync(trial.key, [one.arm for one in trials if one.key == trial.key], trial.seed)
    mirrored.finish(run, judged(run))
    if not mirrored.close(patient=True):
        raise typer.Exit(FAILED)
    console.print(f"study {name} is in MLflow at {shown(uri)}")


def in_root(
    study: Path, root: str, ablations: list[Path] | None, scale: str | None
) -> tuple[str, str]:
    """The run root and the name of a study that is given as a file, a name or its run folder."""
    from ablations.registration import STUDIES
    from ablations.study.where import find_study

    try:
        study = find_study(study, or_folder=True)
    except InputError:
        # It may have been run from a file that is elsewhere: the root is enough.
        if not _was_run(str(study), root):
            raise
        return root, str(study)
    if not study.is_dir():
        # Only now: it loads PyTorch, which takes longer than many a report.
        from ablations.study.loading import load_study

        return root, load_study(study, None, ablations or (), scale).name
    folder = study.absolute()
    if folder.parent.name == STUDIES:
        return str(folder.parent.parent), folder.name
    if _was_run(folder.name, str(folder.parent)):
        return str(folder.parent), folder.name  # of before: whoever reads it says so
    raise InputError(f"{study} is no study of a run root: give ROOT/{STUDIES}/NAME")


def _was_run(name: str, root: str) -> bool:
    """Whether the run root has a study of that name."""
    from ablations.registration import STUDIES
    from dashboards.tables.chain import old_studies
    from trainers.system.store import open_store

    try:
        store = open_store(root)
    except InputError:
        return False
    return name in store.names(STUDIES) or name in old_studies(store)
