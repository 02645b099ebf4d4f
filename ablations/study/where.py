"""Where a study lies: a file, or one that is packaged and has a name."""

from pathlib import Path

import ablations.studies
from trainers.config import nearest
from trainers.errors import StudyError


def packaged_studies() -> dict[str, Path]:
    """The study files that come with dinolab, by name, sorted."""
    return {
        path.stem: path
        for home in ablations.studies.__path__
        for path in sorted(Path(home).glob("*.yaml"))
    }


def find_study(given: Path, *, or_folder: bool = False) -> Path:
    """`given` itself where a file is there, or else the packaged study of that name.

    A folder counts where `or_folder`. Raises StudyError, one line, for none of these.
    """
    allowed = "a YAML file, a run folder" if or_folder else "a YAML file"
    try:
        path = given.expanduser()
        is_folder = path.is_dir()
        if path.exists() and (or_folder or not is_folder):
            return path
    except (OSError, RuntimeError) as error:
        raise StudyError(f"study {given} cannot be read: {error}; give {allowed}") from None
    known = packaged_studies()
    name = str(given)
    if name not in known:
        raise StudyError(
            f"study {name} cannot be read: {'a folder' if is_folder else 'no such file'}, and no "
            "packaged study of that name"
            f"{nearest(name.removesuffix('.yaml'), known)} (allowed: {allowed}, "
            f"{', '.join(known)})"
        )
    return known[name]


def question_of(study: Path) -> str:
    """The first line of a study file's opening comment, or an empty text."""
    for line in study.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and "$schema" not in line:
            return line.removeprefix("# ")
        if not line.startswith("#"):
            break
    return ""
