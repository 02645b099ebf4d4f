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


def find_study(given: Path, allowed: str = "a YAML file") -> Path:
    """`given` itself where something is there, or else the packaged study of that name.

    Raises StudyError, one line, for neither; `allowed` are the words for what else may be given.
    """
    try:
        path = given.expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError) as error:
        raise StudyError(f"study {given} cannot be read: {error}; give {allowed}") from None
    known = packaged_studies()
    name = str(given)
    if name not in known:
        raise StudyError(
            f"study {name} cannot be read: no such file, and no packaged study of that name"
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
