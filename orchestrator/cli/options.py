"""Options that several commands share."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console

from trainers.errors import StudyError

if TYPE_CHECKING:
    from trainers.system.store import Store

Given = TypeVar("Given", Path, list[Path], None)


def at_home(given: Given) -> Given:
    """The paths of an option, with `~` as home: after `--root=` the shell leaves it as it is."""
    if given is None:
        return given
    if isinstance(given, list):
        return [at_home(path) for path in given]
    return Path(os.path.expanduser(given))  # noqa: PTH111 (a Path raises for an unknown ~name)


class Device(StrEnum):
    """Where a network is trained or measured."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


DeviceOption = Annotated[Device, typer.Option(help="auto: a GPU if PyTorch finds one.")]

ModelImagesOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="A name that `dinolab list datasets` has, a folder of images, or what "
        "`dinolab ingest` made; a checkpoint of dinolab knows its own.",
        show_default=False,
    ),
]

SizeOption = Annotated[
    int | None,
    typer.Option(
        help="Side of the images, pixels, a multiple of the patch; the model's own if not given.",
        show_default=False,
    ),
]

WeightsOption = Annotated[
    Path | None,
    typer.Option(
        callback=at_home,
        metavar="FILE",
        help="State of the timm model that is named (.safetensors, .pth).",
        show_default=False,
    ),
]

HeadsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Attention heads, where a file of weights or a timm name does not say them right.",
        show_default=False,
    ),
]

PretrainedOption = Annotated[
    bool, typer.Option("--pretrained", help="Downloads timm's published weights.")
]

ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads; all CPUs if not given.", show_default=False)
]


def _root_at_home(given: str) -> str:
    return given if "://" in given else str(at_home(Path(given)))


RootOption = Annotated[
    str,
    typer.Option(
        "--root",
        callback=_root_at_home,
        envvar="DINOLAB_ROOT",
        metavar="PATH",
        help="Run root: runs, studies, data indexes and the MLflow store lie in it; a path, or "
        "s3://, gs://, az://.",
    ),
]


def name_of_study(given: str, store: "Store") -> str:
    """The name of a study of the root, or the one that a study file gives itself.

    Raises StudyError, one line, for a file without one, or with one for each of several scales.
    What else is wrong with it is no matter.
    """
    from ablations.registration import STUDIES

    path = at_home(Path(given))
    # isfile says False of what can be no path.
    if not os.path.isfile(path) or given in store.names(STUDIES):  # noqa: PTH113
        return given
    from ablations.study.reading import names_in

    names = names_in(path)
    if not names:
        raise StudyError(f"study file {path} has no name; give `name: NAME`")
    if len(names) > 1:
        raise StudyError(f"{path}: is written for several scales; give {' or '.join(names)}")
    return names[0]


def _study(given: Path) -> Path:
    from ablations.study.where import find_study

    return find_study(at_home(given))


StudyArgument = Annotated[
    Path,
    typer.Argument(
        help="Study file (YAML), or a name from `dinolab list studies`.",
        callback=_study,
        show_default=False,
    ),
]

WitnessOption = Annotated[
    str | None,
    typer.Option(
        "--witness",
        metavar="COMMAND",
        help="Command that is shown the registration before anything is trained: it gets the "
        "digest as its last word and as DINOLAB_REGISTRATION. What it prints is kept. It has 60 s: "
        "if it fails the command ends with code 2, nothing is trained, and the registration "
        "stands.",
        show_default=False,
    ),
]

StudyOrFolderArgument = Annotated[
    Path,
    typer.Argument(
        help="Study file or name, or the run folder of a study.",
        callback=at_home,
        show_default=False,
    ),
]

DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Replaces the study's data set: `digits`, a folder of images "
        "(its sub-folders are the labels), or what `dinolab ingest` made.",
        show_default=False,
    ),
]

WorkersOption = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="NUMBER",
        help="Processes that train one model (a Ray Train worker group when more than one), or "
        "the fewest and the most, as 2..8: as many as there is room for; replaces the study's own.",
        show_default=False,
    ),
]

MaxConcurrentOption = Annotated[
    int | None,
    typer.Option(
        "--max-concurrent",
        min=1,
        help="Trials at once, at most; as many as fit if not given.",
        show_default=False,
    ),
]

LeaveCpusOption = Annotated[
    int,
    typer.Option("--leave-cpus", min=0, help="CPUs of this machine that are left to others."),
]

MoveStragglersOption = Annotated[
    bool,
    typer.Option(
        "--move-stragglers",
        help="A run that is twice as slow as others of its arm saves, and goes on on another "
        "machine where one is free.",
    ),
]

TimeLimitOption = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        min=1,
        metavar="SECONDS",
        help="Ends an attempt at a trial that takes longer, and counts it as failed; replaces the "
        "study's own.",
        show_default=False,
    ),
]

OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="ARM",
        help="Trains only this arm now; may be given again. The others stay missing.",
        show_default=False,
    ),
]

SeedsOption = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        metavar="SEEDS",
        help="Trains only these seeds of the study now, as `0..3` or `0,2,5`.",
        show_default=False,
    ),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Prints JSON instead of tables.")]

ScaleOption = Annotated[
    str | None,
    typer.Option(
        "--scale",
        help="Which of the study file's scales, where it is written for several.",
        show_default=False,
    ),
]

AblationsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--ablations",
        callback=at_home,
        metavar="PATH",
        help="Ablations of your own: a file that sets ABLATION, or a folder of such; may be given "
        "again.",
        show_default=False,
    ),
]

QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Plain lines instead of live progress.")
]

DEFAULT_ROOT = "runs"


def absolute_root(root: str, console: Console) -> str:
    """The run root, a path made absolute.

    A Ray job runs in a temporary copy of its working directory, which goes with the cluster: there
    a relative root lies under the home directory of the node instead.
    """
    if "://" in root:
        return root
    path = Path(root)
    if path.is_absolute() or "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return str(path.absolute())
    path = Path.home() / path
    console.print(f"Ray job: run root {path} (absolute --root or DINOLAB_ROOT to choose another)")
    return str(path)
