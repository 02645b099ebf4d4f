"""RAY: whether every machine of a cluster sees the run root and the images, before a study."""

import contextlib
import hashlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from ablations.study.schema import Resources
from orchestrator import interrupt
from orchestrator.driver.arrival import versions_here
from orchestrator.resources import Placement, held_by, node_of
from trainers.config.data import EMBEDDED
from trainers.errors import (
    DataError,
    InputError,
    RootError,
    StoreError,
    first_line,
    printable,
    reason,
)
from trainers.system.storage import locate
from trainers.system.store import Store, open_store

ANSWER_WITHIN_S = 60
"""for which a machine may keep silent: it may have to start a worker beside others"""

_OF_ALL = "a folder that all machines share, or one at s3://, gs:// or az://"

_BITS = ("torch", "torchvision", "numpy")
"""Libraries on which the numbers of a run depend."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a machine is asked; travels by pickle."""

    root: str
    mark: str
    """name of a file that lies in the root for the moment; empty on object storage"""
    sources: Mapping[str, str]
    """images, and what their folder holds, as `contents` tells"""

    def answer(self) -> "Answer":
        """As it is on this machine."""
        problems = []
        try:
            store = open_store(self.root)
            store.names()
            if self.mark and store.local and not (store.local / self.mark).exists():
                raise RootError(f"{store.shown} is another folder there")
        except (InputError, StoreError) as error:
            problems.append(f"does not see the run root ({error}): give --root {_OF_ALL}")
        for source, here in self.sources.items():
            try:
                if contents(source) != here:
                    raise DataError(f"{printable(source)} holds other files there")
            except (InputError, OSError) as error:
                problems.append(
                    f"does not see the images ({first_line(error)}): give --data {_OF_ALL}, such "
                    "as `dinolab ingest` makes, or send a small one: `dinolab submit --ship-data`"
                )
        return Answer(problems=tuple(problems), versions=versions_here())


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a machine has of what a study needs; travels by pickle."""

    problems: tuple[str, ...] = ()
    """one line each, without the machine's name"""
    versions: Mapping[str, str] = field(default_factory=dict)
    """of Python and the libraries"""


def contents(source: str) -> str:
    """A hash of the names that lie in a folder, one level deep; all files have the same.

    Raises DataError when nothing is there.
    """
    place = locate(source)
    kind = place.kind()
    if kind == "nothing":
        raise DataError(f"{place.shown} is not there")
    found = sorted(place.sizes() if kind == "folder" else [])
    return hashlib.sha256("\0".join([kind, *found]).encode(errors="surrogateescape")).hexdigest()


def refuse_blind(
    root: str,
    store: Store,
    sources: Iterable[str],
    resources: Resources,
    placement: Placement,
    console: Console,
) -> None:
    """Ask every machine that can hold a worker whether it has what the study needs.

    Raises InputError, which names machines and paths, before anything is written: when one does not
    see the run root or the images, or has other versions of the libraries that compute. Other
    differences, and machines that do not answer, are notes. Machines that join later are not asked.
    """
    with _mark_in(store) as mark:
        question = Question(
            root=root,
            mark=mark,
            sources={source: contents(source) for source in sources if source not in EMBEDDED},
        )
        answers = _asked(question, resources, placement)
    silent = [name for name, answer in answers if answer is None]
    if silent:
        console.print(f"note: {_named(silent)} did not answer within {ANSWER_WITHIN_S} s")
    refused, notes = judged(
        [(name, answer) for name, answer in answers if answer is not None], versions_here()
    )
    for note in notes:
        console.print(f"note: {note}")
    if refused:
        raise InputError("; ".join(refused))


def judged(
    answers: Sequence[tuple[str, Answer]], here: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Why a study cannot start on these machines, and what else there is to say; one line each.

    What is true of several machines is said once.
    """
    refused: dict[str, list[str]] = {}
    noted: dict[str, list[str]] = {}
    for name, answer in answers:
        for problem in answer.problems:
            refused.setdefault(problem, []).append(name)
        differing = {
            library: f"{library} {answer.versions.get(library, 'not installed')} (here {version})"
            for library, version in here.items()
            if _release(answer.versions.get(library, "")) != _release(version)
        }
        computing = [text for library, text in differing.items() if library in _BITS]
        others = [text for library, text in differing.items() if library not in _BITS]
        if computing:
            problem = f"has {', '.join(computing)}: a run must be the same on every machine"
            refused.setdefault(problem, []).append(name)
        if others:
            noted.setdefault(f"has {', '.join(others)}", []).append(name)
    return (
        [f"{_named(names)} {problem}" for problem, names in refused.items()],
        [f"{_named(names)} {problem}" for problem, names in noted.items()],
    )


def _release(version: str) -> str:
    """Without the local part, which names the device that a library was built for."""
    return version.partition("+")[0]


def _named(names: Sequence[str]) -> str:
    """`machine X`, or the first of several and how many more there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"machine {names[0]}{more}"


@contextlib.contextmanager
def _mark_in(store: Store) -> Iterator[str]:
    """The name of a file that lies in the root meanwhile: elsewhere the same path may be another.

    It counts as no object; empty on object storage. Raises StoreError when it cannot be written.
    """
    if store.local is None:
        yield ""
        return
    try:
        file = tempfile.NamedTemporaryFile(prefix=".seen-", dir=store.local)  # noqa: SIM115
    except OSError as error:
        raise StoreError(f"run root {store.shown} cannot be written: {reason(error)}") from error
    try:
        yield Path(file.name).name
    finally:
        # A root that has gone meanwhile has nothing to delete.
        with contextlib.suppress(OSError):
            file.close()


def _asked(
    question: Question, resources: Resources, placement: Placement
) -> list[tuple[str, Answer | None]]:
    """Names of machines with their answers; None of those that do not answer in time."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(Question.answer)
    waiting: dict[Any, str] = {}
    for one in ray.nodes():
        node = node_of(one["NodeManagerHostname"], one["Resources"], one.get("Labels") or {})
        if one["Alive"] and held_by(node, resources, placement.gpus_per_worker):
            there = NodeAffinitySchedulingStrategy(node_id=one["NodeID"], soft=False)
            name = f"{node.name} ({one['NodeManagerAddress']})"
            waiting[task.options(scheduling_strategy=there).remote(question)] = name
    done: set[Any] = set()
    until = time.monotonic() + ANSWER_WITHIN_S
    while len(done) < len(waiting) and time.monotonic() < until:
        interrupt.check()
        done = set(ray.wait(list(waiting), num_returns=len(waiting), timeout=1)[0])
    return [(name, _answer(one) if one in done else None) for one, name in waiting.items()]


def _answer(task: Any) -> Answer | None:
    import ray

    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        return Answer(
            problems=(f"cannot run dinolab ({first_line(error.cause)}): install it there, too",)
        )
    except ray.exceptions.RayError:  # it has gone meanwhile
        return None
