"""The first thing that a submitted job does: is this Python one that can run it?

It imports nothing but the standard library before it knows, since what is missing is what it says.
"""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping

VERSIONS = "DINOLAB_SUBMITTED_WITH"
"""Variable: Python and libraries where the job was submitted, as `name=version` with spaces."""

LIBRARIES = ("ray", "torch", "torchvision", "numpy", "pyarrow", "scipy", "mlflow", "pydantic")
"""Without which no study runs."""


def versions_here() -> dict[str, str]:
    """Of Python and the libraries, by name; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def as_text(versions: Mapping[str, str]) -> str:
    """`versions` as the variable has them."""
    return " ".join(f"{name}={version}" for name, version in versions.items())


def missing(here: Mapping[str, str]) -> str:
    """What is wrong with a Python that lacks libraries, in a line; empty where none is missing."""
    lacking = [name for name in LIBRARIES if name not in here]
    if not lacking:
        return ""
    return (
        f"the cluster's Python ({sys.executable}, {here['python']}) has no {', '.join(lacking)}: "
        'install "dinolab[orchestrator]" in it, on every machine of the cluster'
    )


def differing(here: Mapping[str, str], there: str) -> str:
    """What differs from where the job was submitted, in a line; empty where nothing does."""
    submitted = dict(pair.split("=", 1) for pair in there.split() if "=" in pair)
    found = [
        f"{name} {here[name]} (there {version})"
        for name, version in submitted.items()
        if name in here and here[name] != version
    ]
    if not found:
        return ""
    return (
        f"note: the cluster has other versions than where this was submitted: {', '.join(found)}; "
        "numbers may differ from runs there"
    )


def main() -> None:
    """Say what differs; exit code 2, one line, when a study cannot run here."""
    here = versions_here()
    if problem := missing(here):
        print(problem, file=sys.stderr)
        sys.exit(2)
    if note := differing(here, os.environ.get(VERSIONS, "")):
        print(note)


if __name__ == "__main__":
    main()
