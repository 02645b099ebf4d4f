"""Which ablations there are: the catalogue's, those of installed packages, a user's own files.

An ablation is a Python file that sets ABLATION; its name is the file's, and one of its arms has it.
"""

import importlib
import pkgutil
import runpy
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import ablations.catalogue
from ablations.spec import BASELINE, Ablation
from trainers.config import shown
from trainers.config.explain import brief
from trainers.errors import ConfigError, DinolabError

ENTRY_POINTS = "dinolab.ablations"
"""Group in which an installed package names a module with ABLATION, or a package of such."""

CATALOGUE = "catalogue"


@dataclass(frozen=True, kw_only=True)
class Known:
    """An ablation that can be named, not yet imported."""

    name: str
    origin: str
    """where it comes from, in words"""
    where: str
    """module or file, for messages"""
    read: Callable[[], object]
    """gives ABLATION, or raises whatever the file raises"""

    def load(self) -> Ablation:
        """The ablation. Raises ConfigError, one line, with what is wrong in the file."""
        try:
            found = self.read()
        except DinolabError as error:
            # A line for each knob: all of them name the file.
            problems = str(error).splitlines()
            raise ConfigError("\n".join(f"{self.where}: {line}" for line in problems)) from None
        except (Exception, SystemExit) as error:  # noqa: BLE001 (the file may raise anything)
            raise ConfigError(
                f"{self.where} cannot be imported: {_reason(error, self.where)}"
            ) from None
        if not isinstance(found, Ablation):
            raise ConfigError(
                f"{self.where} must set ABLATION to an Ablation, got {shown(found)}; "
                "`dinolab new ablation NAME` writes one"
            )
        if self.name not in found.arms or BASELINE in found.arms:
            raise ConfigError(
                f"{self.where}: one arm must be named {self.name} like the file, and none "
                f"{BASELINE} (given: {', '.join(found.arms)})"
            )
        return found


def library(paths: Sequence[Path] = ()) -> dict[str, Known]:
    """Every ablation that can be named, by name: catalogue, installed packages, then `paths`.

    Each path is a file or a folder of files; names that start with _ or . are left out. Raises
    ConfigError for a path that is not there or holds none, and for a name that is there already.
    """
    known: dict[str, Known] = {}
    for one in (*_in_catalogue(), *_in_packages(), *_in_paths(paths)):
        before = known.get(one.name)
        if before is not None and before.where != one.where:
            raise ConfigError(
                f"ablation {one.name} is in {before.where} and in {one.where}: names must differ, "
                "give one another"
            )
        known[one.name] = one
    return known


def names_in(package: Any) -> list[str]:
    """Names of the modules of a package of recipes or ablations."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def _in_catalogue() -> Iterator[Known]:
    for name in names_in(ablations.catalogue):
        yield _module(f"{ablations.catalogue.__name__}.{name}", CATALOGUE, "the catalogue")


def _module(module: str, origin: str, where: str = "") -> Known:
    return Known(
        name=module.rpartition(".")[2],
        origin=origin,
        where=where or f"module {module}",
        read=lambda: getattr(importlib.import_module(module), "ABLATION", None),
    )


def _in_packages() -> Iterator[Known]:
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda one: (one.name, one.value)):
        home = entry.dist.name if entry.dist else entry.value
        try:
            found = importlib.import_module(entry.module)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (it may raise anything)
            raise ConfigError(
                f"ablations of package {home}: module {entry.module} cannot be imported: "
                f"{_reason(error)}; repair or uninstall it"
            ) from None
        inside = names_in(found) if hasattr(found, "__path__") else []
        modules = [f"{entry.module}.{name}" for name in inside] or [entry.module]
        for module in modules:
            yield _module(module, f"package {home}")


def _in_paths(paths: Sequence[Path]) -> Iterator[Known]:
    for path in paths:
        path = path.expanduser()
        if path.is_dir():
            files = sorted(one for one in path.glob("*.py") if one.name[0] not in "_.")
        else:
            files = [path] if path.suffix == ".py" and path.is_file() else []
        if not files:
            what = "holds no .py file" if path.is_dir() else "is no .py file and no folder of them"
            raise ConfigError(
                f"--ablations {path} {what}: give a file that sets ABLATION, or a folder of such"
            )
        for file in files:
            yield _file(file)


def _file(file: Path) -> Known:
    return Known(
        name=file.stem,
        origin=str(file),
        where=f"ablation file {file.resolve()}",
        read=lambda: runpy.run_path(str(file)).get("ABLATION"),
    )


def _reason(error: BaseException, where: str = "") -> str:
    """Kind and text of an error, and the line of the file `where` that led to it, on one line."""
    text = brief(" ".join(str(error).split()))
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if where and where.endswith(str(Path(frame.filename).resolve()))
    ]
    at = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {text}{at}"
