"""What is sent to a cluster so that it runs a study: files, words of the command, environment."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainers.config.recipe import is_code
from trainers.errors import InputError, printable

PACKAGES = ("trainers", "ablations", "dashboards", "orchestrator")

MOST_BYTES = 100 * 2**20
"""What a head takes as the files of a job: the dashboard of Ray refuses a longer request."""

OWN_ABLATIONS = "own_ablations"
"""Folder of the job that the files of `--ablations` lie in."""

OWN_IMAGES = "own_images"
"""Folder of the job that the images of `--ship-data` lie in."""

PASSED = ("AWS_", "GOOGLE_", "AZURE_", "MLFLOW_", "DINOLAB_")
"""What names of variables begin with that a job is given as they are here."""

NOT_PASSED = (
    # An option says it.
    "DINOLAB_ROOT",
    # Of a run of this machine: it would be the parent of all of the study's.
    "MLFLOW_RUN_ID",
    # Files of this machine.
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
)

_SAME_AT_ANY_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A study as a job."""

    study: str
    """name"""
    root: str
    """run root: an absolute path, or a URI"""
    arguments: tuple[str, ...]
    """of `dinolab run`, as they are to be given in the folder of `files`"""
    files: Mapping[str, bytes]
    """by their paths in the job's folder, sorted"""

    @property
    def identity(self) -> str:
        """Beginning of the ids of its jobs: equal for the same study, options and run root.

        Code of dinolab does not count: who submits again, with a mistake mended, joins what runs.
        """
        own = {
            name: hashlib.sha256(content).hexdigest()
            for name, content in self.files.items()
            if name.split("/")[0] not in PACKAGES
        }
        stated = json.dumps([self.study, self.root, self.arguments, own], sort_keys=True)
        plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in self.study)[:60]
        return f"dinolab-{plain}-{hashlib.sha256(stated.encode()).hexdigest()[:12]}"

    def archive(self) -> bytes:
        """The files as one zip archive, the same bytes at any time.

        Raises InputError, one line, when it is larger than Ray takes.
        """
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self.files.items():
                entry = zipfile.ZipInfo(name, _SAME_AT_ANY_TIME)
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content)
        made = buffer.getvalue()
        if len(made) >= MOST_BYTES:
            largest = max(self.files, key=lambda name: len(self.files[name]))
            raise InputError(
                f"the files of this job are {len(made) / 2**20:.0f} MiB, and Ray takes less than "
                f"{MOST_BYTES // 2**20} MiB; the largest is {largest}: data belong on a folder "
                "that the cluster sees, or on object storage, and are named by --data"
            )
        return made


def files_of(study: Path, ablations: Sequence[Path], recipe: str) -> dict[str, bytes]:
    """What a job needs to run a study file, by path in its folder, sorted.

    The study file, the ablations that are given as files, a recipe that is one, and our own
    packages; nothing else of the folder that anything lies in. Raises InputError, one line, for a
    recipe that lies outside the current folder.
    """
    found = {study.name: study, **dict(_own_code())}
    for file in _ablation_files(ablations, recipe):
        found[f"{OWN_ABLATIONS}/{file.name}"] = file
    if recipe.endswith((".json", ".py")):
        path = Path(recipe)
        if path.is_absolute() or {"..", "~"} & set(path.parts) or path.parts[0] in PACKAGES:
            raise InputError(
                f"recipe {recipe} cannot be sent: give its path in the current folder, or one "
                "below it"
            )
        found[path.as_posix()] = path
    return {name: found[name].read_bytes() for name in sorted(found)}


def images_of(source: str) -> dict[str, bytes]:
    """The files of a folder of images, by path in the job's folder, sorted.

    Raises InputError, one line, where there is no folder, or its files are more than a job takes.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(
            f"--ship-data sends a folder of this machine, which {printable(source)} is not; leave "
            "it out"
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in files)
    if size >= MOST_BYTES:
        raise InputError(
            f"--ship-data: {printable(source)} has {size / 2**20:.0f} MiB, and a job takes less "
            f"than {MOST_BYTES // 2**20} MiB; put it on a folder that the cluster sees, or on "
            "object storage, and name that by --data"
        )
    return {
        f"{OWN_IMAGES}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files
    }


def _own_code() -> Iterator[tuple[str, Path]]:
    home = Path(__file__).parent.parent
    for package in PACKAGES:
        for path in (home / package).rglob("*"):
            name = path.relative_to(home)
            if path.is_file() and not any(_is_aside(part) for part in name.parts):
                yield name.as_posix(), path


def _is_aside(part: str) -> bool:
    return part.startswith(".") or part == "__pycache__"


def ablation_options(files: Mapping[str, bytes], recipe: str) -> list[str]:
    """The options `--ablations` of a job that is sent these `files`."""
    own = [OWN_ABLATIONS] if any(name.startswith(f"{OWN_ABLATIONS}/") for name in files) else []
    own += [recipe] if is_code(recipe) else []
    return [word for path in own for word in ("--ablations", path)]


def _ablation_files(ablations: Sequence[Path], recipe: str) -> Iterator[Path]:
    """Those that `--ablations` reads, but the recipe: a folder's own Python files."""
    for path in ablations:
        if path.is_dir():
            found = [one for one in path.glob("*.py") if one.name[0] not in "_."]
        else:
            found = [path]
        yield from (one for one in found if one.resolve() != Path(recipe).resolve())


def environment_passed(also: Sequence[str]) -> dict[str, str]:
    """The variables of this process that a job is given: those of PASSED, and those named.

    Raises InputError, one line, for a name that is not set, or a value in the place of a name.
    """
    for name in also:
        if "=" in name:
            given = name.partition("=")[0]
            raise InputError(
                f"--env {given}=…: give the name alone, with its value in the environment: a "
                "command line is seen by everybody on this machine"
            )
        if name not in os.environ:
            raise InputError(f"--env {name}: it is not set here; export it, or leave it out")
    found = {
        name: value
        for name, value in sorted(os.environ.items())
        if name in also or (name.startswith(PASSED) and name not in NOT_PASSED)
    }
    kind, _, file = found.get("MLFLOW_TRACKING_URI", "").partition(":///")
    if kind == "sqlite":
        found["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(file).absolute()}"
    return found
