"""Commands on studies that run as jobs of a cluster elsewhere: submit, job."""

import time
from enum import StrEnum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from orchestrator import interrupt
from orchestrator.cli.exit_codes import BAD_INPUT, DONE, FAILED, INCOMPLETE, INTERRUPTED
from orchestrator.cli.options import (
    DEFAULT_ROOT,
    AblationsOption,
    DataOption,
    MaxConcurrentOption,
    MoveStragglersOption,
    OnlyOption,
    RootOption,
    ScaleOption,
    SeedsOption,
    StudyArgument,
    TimeLimitOption,
    WitnessOption,
    WorkersOption,
    absolute_root,
    at_home,
)
from orchestrator.cli.rendering import make_console
from trainers.errors import InputError

if TYPE_CHECKING:
    from orchestrator.driver.jobs import Job, Jobs

AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        envvar="RAY_API_SERVER_ADDRESS",
        metavar="URL",
        help="Dashboard of the cluster's head, http://HOST:8265.",
        show_default=False,
    ),
]

FollowOption = Annotated[
    bool,
    typer.Option(
        "--follow", help="Print what the driver prints until it ends, and end with its exit code."
    ),
]

MEANING = {
    DONE: "done",
    FAILED: "failed",
    BAD_INPUT: "bad input",
    INCOMPLETE: "finished with missing runs",
    INTERRUPTED: "interrupted",
}
"""of the exit codes of `dinolab run`"""


def submit(
    study: StudyArgument,
    address: AddressOption,
    root: RootOption = DEFAULT_ROOT,
    data: DataOption = None,
    workers: WorkersOption = None,
    ablations: AblationsOption = None,
    scale: ScaleOption = None,
    only: OnlyOption = None,
    seeds: SeedsOption = None,
    max_concurrent: MaxConcurrentOption = None,
    time_limit: TimeLimitOption = None,
    move_stragglers: MoveStragglersOption = False,
    witness: WitnessOption = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Variable that the job gets too, beside AWS_…, GOOGLE_…, AZURE_…, MLFLOW_… and "
            "DINOLAB_…, with its value in this environment; may be given again.",
            show_default=False,
        ),
    ] = None,
    ship_data: Annotated[
        bool,
        typer.Option(
            "--ship-data",
            help="Send the folder of images, too; less than 100 MiB. It lies where the job does, "
            "for as long as that.",
        ),
    ] = False,
    follow: FollowOption = False,
) -> None:
    """Run a study on a cluster, as a job that goes on when this machine is gone.

    The study, ablations of your own and dinolab itself are sent; images, without --ship-data, and
    the run root are not, and must lie where the cluster sees them. A relative path means one of
    this folder. Who submits the same again joins the job that runs; when that has ended, another
    goes on from what is finished. `dinolab job status|logs|stop` asks for it later.
    """
    from orchestrator.cli.studies import asked
    from orchestrator.submission import (
        OWN_IMAGES,
        Submission,
        ablation_options,
        environment_passed,
        files_of,
        images_of,
    )

    checked, _ = asked(
        study, data, workers, ablations, scale, only, seeds, time_limit, move_stragglers
    )
    source = checked.base.data.source
    images = images_of(source) if ship_data else {}
    environment = environment_passed(env or ())
    console = make_console()
    root = absolute_root(root, console)
    options: dict[str, object] = {
        "--root": root,
        "--data": OWN_IMAGES if ship_data else source,
        "--workers": workers,
        "--scale": scale,
        "--seeds": seeds,
        "--max-concurrent": max_concurrent,
        "--time-limit": time_limit,
        "--witness": witness,
    }
    given = [word for arm in only or () for word in ("--only", arm)]
    given += ["--move-stragglers"] if move_stragglers else []
    for option, value in options.items():
        given += [] if value is None else [option, str(value)]
    files = files_of(study, ablations or (), checked.recipe)
    submission = Submission(
        study=checked.name,
        root=root,
        arguments=(study.name, *given, *ablation_options(files, checked.recipe), "--quiet"),
        files=dict(sorted({**files, **images}.items())),
    )
    size = len(submission.archive()) / 2**20
    jobs = connected(address, console)
    job, is_new = jobs.submit(submission, environment)
    if is_new:
        names = ", ".join(environment) or "none"
        console.print(f"{len(submission.files)} files, {size:.1f} MiB; variables passed: {names}")
        console.print(f"study {job.study} is job {job.id}, run root {root}")
    else:
        console.print(f"study {job.study} runs already, as job {job.id}: joined")
    if follow:
        followed(jobs, job, console)
    console.print(f"`dinolab job status|logs|stop {job.study} --address {jobs.address}`")


class Verb(StrEnum):
    """What can be asked of a job."""

    status = auto()
    logs = auto()
    stop = auto()


def job(
    what: Annotated[Verb, typer.Argument(show_default=False)],
    address: AddressOption,
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY]",
            help="Study file or name, or the id of a job; all jobs of dinolab if not given, for "
            "status.",
            show_default=False,
        ),
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(
            "--root",
            metavar="PATH",
            help="Only jobs of this run root; of any if not given.",
            show_default=False,
        ),
    ] = None,
    scale: ScaleOption = None,
    follow: FollowOption = False,
) -> None:
    """Ask for a study that was submitted: how it is, what its driver printed; or stop it.

    Stopped, it ends as by Ctrl-C: what is finished stays, and submitting it again goes on from
    there. `logs` is of the newest job, and ends with the driver's code where it is followed.
    """
    if study is None and what != Verb.status:
        raise InputError(f"job {what}: give a study, or the id of a job")
    if follow and what != Verb.logs:
        raise InputError(f"--follow goes with `dinolab job logs`, and not with {what}")
    name = study and _name(study, scale)
    console = make_console()
    if root is not None:
        root = absolute_root(root if "://" in root else str(at_home(Path(root))), console)
    jobs = connected(address, console)
    found = [one for one in jobs.of(None, root) if name is None or name in (one.study, one.id)]
    if not found:
        of = f" of {name}" if name else ""
        at = f" in {root}" if root else ""
        if what == Verb.status and name is None:
            console.print(f"no jobs{at} at {jobs.address}")
            return
        raise InputError(f"no job{of}{at} at {jobs.address}: `dinolab job status` lists all")
    if what == Verb.status:
        _show(found, console)
    elif what == Verb.stop:
        _stop(jobs, found, console)
    elif follow:
        followed(jobs, found[0], console)
    else:
        print(jobs.logs(found[0]), end="")


def connected(address: str, console: Console) -> "Jobs":
    """The jobs of a cluster, and a line when it has another Ray than this machine."""
    from orchestrator.driver.arrival import versions_here
    from orchestrator.driver.jobs import Jobs

    jobs = Jobs(address)
    here = versions_here()["ray"]
    if jobs.version not in ("", here):
        console.print(f"note: the cluster runs Ray {jobs.version}, and this machine has {here}")
    return jobs


def followed(jobs: "Jobs", job: "Job", console: Console) -> NoReturn:
    """Print what a job prints, and end as its driver does. Raises typer.Exit."""
    import sys

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        job = jobs.follow(job, write)
    except KeyboardInterrupt:
        interrupt.tell(
            f"job {job.id} goes on; `dinolab job stop {job.study} --address {jobs.address}` ends "
            "it",
            console.print,
        )
        raise typer.Exit(INTERRUPTED) from None
    console.print(f"job {job.id}: {_ended(job)}")
    raise typer.Exit(_code(job))


def _name(study: str, scale: str | None) -> str:
    """The name of a study that is given by its file, or as it stands."""
    from ablations.study.reading import read_study
    from ablations.study.where import packaged_studies

    path = packaged_studies().get(study, at_home(Path(study)))
    try:
        if not path.is_file():
            return study
    except OSError:
        return study
    return str(read_study(path, scale).get("name", study))


def _show(found: "list[Job]", console: Console) -> None:
    table = Table("study", "job", "state", "submitted", "run root")
    for one in found:
        began = one.began and time.strftime("%Y-%m-%d %H:%M", time.localtime(one.began))
        table.add_row(one.study, one.id, _ended(one), began or "", one.root)
    console.print(table)


def _stop(jobs: "Jobs", found: "list[Job]", console: Console) -> None:
    running = [one for one in found if not one.has_ended]
    if not running:
        console.print(f"job {found[0].id} has ended: {_ended(found[0])}")
        return
    if len(running) > 1:
        ids = ", ".join(one.id for one in running)
        raise InputError(f"{len(running)} jobs of {found[0].study} run: give one of {ids}")
    now = jobs.stop(running[0])
    console.print(f"job {now.id}: {_ended(now)}; submitting it again goes on from what is finished")


def _code(job: "Job") -> int:
    """The exit code of a driver that has ended: that of Ctrl-C for one that was stopped."""
    if job.exit_code is not None:
        return job.exit_code
    return INTERRUPTED if job.status == "STOPPED" else FAILED


def _ended(job: "Job") -> str:
    """The state of a job in words."""
    if not job.has_ended or job.status == "STOPPED":
        return job.status.lower()
    if job.exit_code is None:
        return f"{job.status.lower()}: {job.message}"
    meaning = MEANING.get(job.exit_code)
    if job.exit_code == 127:
        meaning = "no `python` on the PATH of the head"
    return f"exit code {job.exit_code}" + (f": {meaning}" if meaning else "")
