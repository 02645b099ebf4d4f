"""Commands on what a run root holds: status, show, logs, gc."""

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.cli.options import (
    DEFAULT_ROOT,
    JsonOption,
    RootOption,
    absolute_root,
    name_of_study,
)
from orchestrator.cli.rendering import make_console, old_studies_text, print_json

if TYPE_CHECKING:
    from ablations.registration import Entry
    from dashboards.tables.board import Progress
    from trainers.runs.stored_trial import StoredTrial

TrialArgument = Annotated[
    str,
    typer.Argument(
        metavar="TRIAL",
        help="Key of a trial, or the beginning of it, or STUDY/ARM/SEED.",
        show_default=False,
    ),
]


def status(
    study: Annotated[
        str | None,
        typer.Argument(help="Name of a study, or its file; all if not given.", show_default=False),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    json_: JsonOption = False,
) -> None:
    """Show how far each run is, from any machine that sees the run root.

    A board of arms × seeds, then the runs that are at work (step, speed, machine) and those that
    ended without a result (reason).
    """
    from dashboards.tables.board import board, studies_of
    from dashboards.tables.chain import old_studies, read_chain
    from trainers.system.store import open_store

    console = make_console()
    store = open_store(absolute_root(root, console))
    chains, problems = (
        studies_of(store)
        if study is None
        else ([read_chain(store, name_of_study(study, store))], [])
    )
    boards = {chain[-1].study: board(chain[-1], store) for chain in chains}
    if json_:
        for problem in problems:
            print(problem, file=sys.stderr)
        content = {
            name: [
                {"arm": arm, "seed": seed, **dataclasses.asdict(one)}
                for (arm, seed), one in of_study.items()
            ]
            for name, of_study in boards.items()
        }
        print_json(content)
        return
    for problem in problems:
        console.print(problem)
    if not chains and not problems:
        console.print(f"{store.shown} has no studies yet")
    if study is None and (old := old_studies(store)):
        console.print(f"note: {old_studies_text(old)}")
    for chain in chains:
        _show_board(chain, boards[chain[-1].study], console)


def _show_board(
    chain: "Sequence[Entry]", found: "dict[tuple[str, int], Progress]", console: Console
) -> None:
    from ablations.stated import lines_of, stated

    newest = chain[-1]
    seeds = newest.resolved.seeds
    table = Table("arm", *map(str, seeds), title=f"Study {newest.study}: arms × seeds")
    table.title_justify = "left"
    for arm in newest.resolved.arms:
        table.add_row(arm, *(_cell(found[arm, seed]) for seed in seeds))
    console.print(table)
    counts = Counter(one.state for one in found.values())
    console.print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    if newest.number:
        console.print(f"registration {newest.number}: sha256 {newest.digest}")
    for line in lines_of(stated(chain)):
        console.print(line)
    titles: dict[str, list[str]] = {}
    for (arm, seed), one in found.items():
        titles.setdefault(one.key, []).append(f"{arm} seed {seed}")
    for one in {one.key: one for one in found.values()}.values():
        line = _line(one)
        if line:
            console.print(f"{' = '.join(titles[one.key])}: {line}")


def _cell(one: "Progress") -> str:
    if one.state == "running":
        return f"{100 * one.step / max(1, one.steps):.0f} %"
    return one.state


def _line(one: "Progress") -> str:
    """What there is to say of a trial that is at work, or ended without a result."""
    if one.state == "running":
        left = (one.steps - one.step) / one.rate if one.rate else None
        more = "" if left is None else f", {one.rate:.3g} steps/s, {left:.0f} s to go"
        again = f", attempt {one.attempts}" if one.attempts > 1 else ""
        return f"step {one.step} of {one.steps}{more} ({one.where}{again})"
    if one.reason:
        return f"{one.state}: {one.reason}"
    return ""


def _parsed(content: bytes | None) -> Any:
    """What a JSON file says; None where it is not there, or damaged, which is said elsewhere."""
    try:
        return json.loads(content or b"null")
    except ValueError:
        return None


def show(trial: TrialArgument, root: RootOption = DEFAULT_ROOT, json_: JsonOption = False) -> None:
    """Show one trial: which studies name it, its attempts and checkpoints, what it measured.

    Also the registrations under which it was trained, as its result has them.
    """
    from dashboards.tables.board import find_trial, progress_of, studies_of
    from trainers.metrics import METRICS
    from trainers.system.store import open_store

    console = make_console()
    store = open_store(absolute_root(root, console))
    found = find_trial(store, trial)
    progress = progress_of(found)
    chains, problems = studies_of(store)
    named = [
        f"{entry.study}/{place.arm}/{place.seed}"
        + ("" if entry is chain[-1] else f" (registration {entry.number})")
        for chain in chains
        for entry in [e for e in chain if any(one.key == found.key for one in e.trials)][-1:]
        for place in entry.trials
        if place.key == found.key
    ]
    records = [] if progress.state == "damaged" else found.records()
    last = {name: value for _, metrics in records for name, value in metrics.items()}
    under = [] if progress.state == "damaged" else _trained_under(found, chains)
    if json_:
        print_json(
            {
                **dataclasses.asdict(progress),
                "named_by": named,
                "trained_under": under,
                "attempts": _attempts(found),
                "config": _parsed(found.config()),
                "metrics": last,
            }
        )
        return
    console.print(f"trial {found.key}: {progress.state}, step {progress.step} of {progress.steps}")
    console.print(f"named by: {', '.join(named) or 'no study'}")
    for one in under:
        console.print(f"trained under: {_registration_text(one)}")
    for problem in problems:
        console.print(problem)
    if progress.reason:
        console.print(progress.reason)
    table = Table("attempt", "from", "outcome", "step", "machine", "checkpoints")
    for one in _attempts(found):
        start = "the start" if one["from_step"] < 0 else f"step {one['from_step']}"
        table.add_row(
            str(one["attempt"]), start, one["outcome"] or "not ended", str(one["step"]),
            one["where"], ", ".join(map(str, one["checkpoints"])) or "–",
        )  # fmt: skip
    console.print(table)
    if summary := {name: last[name] for name in METRICS if name in last and _is_shown(name)}:
        table = Table("metric", "last value")
        for name, value in summary.items():
            table.add_row(name, f"{value:.4f}")
        table.caption = f"of {len(last)} values: --json prints all"
        console.print(table)
    console.print(f"folder: {found.shown}")


def _trained_under(
    trial: "StoredTrial", chains: "Sequence[Sequence[Entry]]"
) -> list[dict[str, Any]]:
    """The registrations under which the attempts behind a result ran; none without a result."""
    from trainers.errors import printable

    known = {entry.digest: entry for chain in chains for entry in chain}
    rows = []
    names = (trial.finished() or {}).get("registrations")
    for digest in map(str, names) if isinstance(names, list) else ():
        entry = known.get(digest)
        rows.append(
            {
                "study": entry.study if entry else None,
                "registration": entry.number if entry else None,
                "sha256": printable(digest) or None,
            }
        )
    return rows


def _registration_text(one: dict[str, Any]) -> str:
    if one["sha256"] is None:
        return "no registration, outside a study"
    if one["study"] is None:
        return f"a registration that is not in this root, sha256 {one['sha256']}"
    return f"registration {one['registration']} of study {one['study']}, sha256 {one['sha256']}"


def _is_shown(metric: str) -> bool:
    group, _, rest = metric.partition("/")
    is_spread = group == "globality" and rest.endswith("/gyration")
    return group in ("knn", "collapse") or is_spread or metric == "loss/total"


def _attempts(trial: "StoredTrial") -> list[dict[str, Any]]:
    steps: dict[int, list[int]] = {}
    for state in reversed(trial.states()):
        steps.setdefault(state.attempt, []).append(state.step)
    rows = []
    for number in trial.attempts():
        lease = trial.lease(number)
        rows.append(
            {
                "attempt": number,
                "from_step": -1 if lease is None else lease.from_step,
                "outcome": "damaged lease" if lease is None else lease.outcome,
                "step": 0 if lease is None else lease.step,
                "where": "" if lease is None else f"{lease.holder.host} {lease.holder.pid}",
                "checkpoints": steps.get(number, []),
            }
        )
    return rows


def logs(
    trial: TrialArgument,
    root: RootOption = DEFAULT_ROOT,
    attempt: Annotated[
        int | None,
        typer.Option(min=1, help="Which attempt; all that left one if not given."),
    ] = None,
) -> None:
    """Print what the attempts at a trial left to read: last output, and the traceback."""
    from dashboards.tables.board import find_trial
    from trainers.errors import InputError
    from trainers.system.store import open_store

    console = make_console()
    store = open_store(absolute_root(root, console))
    found = find_trial(store, trial)
    numbers = found.attempts()
    if attempt is not None and attempt not in numbers:
        raise InputError(f"--attempt {attempt}: {found.shown} has {len(numbers)} attempts")
    for number in numbers if attempt is None else [attempt]:
        lease = found.lease(number)
        outcome = "damaged lease" if lease is None else lease.outcome or "not ended"
        content = store.get(f"{found.attempt_folder(number)}/log.txt")
        console.print(f"attempt {number}: {outcome}" + ("" if content else ", no log"))
        if content:
            # Not by the console, which would wrap and trim what is to be read as it was.
            sys.stdout.write(content.decode(errors="replace").rstrip("\n") + "\n")


def gc(
    root: RootOption = DEFAULT_ROOT,
    delete: Annotated[
        bool, typer.Option("--delete", help="Deletes what is listed; else it is only listed.")
    ] = False,
    single: Annotated[
        bool, typer.Option("--single", help="Also runs of `dinolab train`, which no study names.")
    ] = False,
) -> None:
    """List what nothing needs any more, and with --delete delete it.

    Trials that no study names, attempts of finished trials that their results do not rest on, and
    results that were set aside. What is being trained is left alone.
    """
    from orchestrator import garbage
    from trainers.system.store import open_store

    console = make_console()
    store = open_store(absolute_root(root, console))
    found = garbage.garbage(store, single=single)
    table = Table("what", "why", "files", "size")
    for one in found:
        size = sum(entry.size for entry in one.entries)
        table.add_row(one.what, one.why, str(len(one.entries)), _megabytes(size))
    if found:
        console.print(table)
    if delete:
        deleted = garbage.delete(found, store)
        if kept := len(found) - len(deleted):
            console.print(f"{kept} of these stay: a study has come to name them")
        found = deleted
    total = sum(entry.size for one in found for entry in one.entries)
    verb = "deleted" if delete else "nothing deleted; `dinolab gc --delete` would free"
    console.print(f"{verb} {_megabytes(total)} in {len(found)} places" if found else "no garbage")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
