"""What several commands print: verdicts, arms, images that were skipped, tables."""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from orchestrator.cli.exit_codes import DONE, INCOMPLETE
from orchestrator.cli.options import DEFAULT_ROOT

if TYPE_CHECKING:
    from dashboards.tables.reading import StudyRun
    from orchestrator.plan import Plan
    from trainers.config import DataConfig
    from trainers.data.image_set import ImageSet
    from trainers.system.storage import Location


def make_console(*, aside: bool = False, plain: bool = False) -> Console:
    """A console that prints every text as it stands: paths and names may hold brackets.

    `aside` it writes to standard error: standard output is for a program. `plain`: neither colours
    nor bold letters.
    """
    is_terminal = (sys.stderr if aside else sys.stdout).isatty()
    return Console(
        stderr=aside,
        color_system=None if plain else "auto",
        width=None if is_terminal else 120,
        soft_wrap=not is_terminal,
        markup=False,
        highlight=False,
        emoji=False,
    )


def open_with_progress(
    config: "DataConfig", root: str, console: Console, live: bool, *, listed: str = ""
) -> "ImageSet":
    """Open the data set, indexing a folder on first use, and say what was skipped.

    `listed` says where all of that is, when there is more than is printed.
    """
    from trainers.data.cache import cache_in
    from trainers.data.image_set import open_images

    with Progress(console=console, transient=True, disable=not live) as progress:
        task = progress.add_task("indexing images", total=None)
        images = open_images(
            config,
            cache_in(root),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    from trainers.errors import printable

    if images.skipped:
        console.print(
            f"skipped {len(images.skipped)} of {len(images) + len(images.skipped)} files in "
            f"{config.source}:",
        )
        for skipped in images.skipped[:20]:
            line = printable(f"  {skipped.path}: {skipped.reason}")
            console.print(line)
        if len(images.skipped) > 20:
            console.print(f"  and {len(images.skipped) - 20} more{listed}")
    return images


def show_verdicts(
    result: "StudyRun",
    verdicts_of: Mapping[str, Any],
    root: str,
    console: Console,
    *,
    as_json: bool = False,
) -> NoReturn:
    """Print verdicts, failed runs and where to look; exit 0, or 3 when runs are missing.

    `as_json` also prints how each run ended, and every verdict, to standard output.
    """
    if as_json:
        runs = [
            {"arm": arm, "seed": seed, "status": one.status, "reason": one.reason}
            for (arm, seed), one in result.runs.items()
        ]
        print_json({"runs": runs, **verdicts_of, "report": f"{result.folder}/report.html"})
    from ablations.stated import lines_of, stated
    from ablations.verdicts.reasons import seed_list
    from dashboards.tables.derived import interval_shown

    verdicts = verdicts_of["hypotheses"]
    if verdicts_of["claims"]:
        claims = Table(title=f"Claims of study {result.name}", title_justify="left")
        for column in ("claim", "", "rule", "verdict", "stated"):
            claims.add_column(column, overflow="fold")
        for name, entry in verdicts_of["claims"].items():
            claim = entry["claim"]
            label = entry["verdict"]["label"].upper()
            claims.add_row(name, claim["text"], claim["rule"], label, entry["stated"]["word"])
        console.print(claims)
        for name, entry in verdicts_of["claims"].items():
            console.print(f"{name}: {entry['verdict']['reason']}")
    table = Table(title=f"Verdicts of study {result.name}", title_justify="left")
    table.add_column("hypothesis", overflow="fold")
    for column in ("expected", "seeds", "mean difference", "interval", "p"):
        table.add_column(column, no_wrap=True)
    table.add_column("verdict", overflow="fold")
    table.add_column("stated", no_wrap=True)
    for name, entry in verdicts.items():
        hypothesis, verdict = entry["hypothesis"], entry["verdict"]
        ends, level = interval_shown(entry)
        sign = "±" if hypothesis["direction"] == "holds" else "by"
        table.add_row(
            name,
            f"{hypothesis['direction']} {sign} {hypothesis['smallest_effect']:g}",
            str(verdict["n"]),
            "–" if verdict["mean"] is None else f"{verdict['mean']:+.4f}",
            interval_text(ends, f"{100 * level:.4g} %"),
            "–" if verdict["p"] is None else f"{verdict['p']:.3g}",
            " ".join([verdict["label"].upper(), *(f"({tag})" for tag in verdict["tags"])]),
            entry["stated"]["word"],
        )
    if verdicts:
        console.print(table)
    # Hypotheses that share an arm that failed have one reason; it is said once.
    names_of: dict[str, list[str]] = {}
    for name, entry in verdicts.items():
        names_of.setdefault(entry["verdict"]["reason"], []).append(name)
    for reason, names in names_of.items():
        console.print(f"{', '.join(names)}: {reason}")
    sensitivities = [
        f"{name} {value:.2g}"
        for name, entry in verdicts.items()
        if (value := entry["verdict"]["sensitivity"]) is not None
    ]
    if sensitivities:
        console.print(
            "sensitivity, the largest effect of any arm over the smallest of interest: "
            + ", ".join(sensitivities)
        )
    for line in lines_of(stated(result.chain)):
        console.print(line)
    said = {arm for hypothesis in result.hypotheses.values() for arm in hypothesis.weights}
    others: dict[tuple[str, str, str], list[int]] = {}
    for (arm, seed), one in result.runs.items():
        if one.status != "finished" and arm not in said:
            others.setdefault((arm, one.status, one.reason), []).append(seed)
    for (arm, status, reason), seeds in others.items():
        why = f" ({reason})" if reason else ""
        line = f"{arm}: {status}{why}, {seed_list(seeds)}"
        console.print(line)
    if result.design is not None:
        from ablations.verdicts.looks import saved_text

        console.print(saved_text(result.runs, result.design))
    unfinished = any(one.status in ("missing", "failed") for one in result.runs.values())
    console.print(f"report: {result.store.shown}/{result.folder}/report.html")
    if result.store.local is None and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise typer.Exit(INCOMPLETE if unfinished else DONE)  # it has no mirror
    in_here = Path(sys.prefix).parent == Path.cwd()
    command = [f"{Path(sys.prefix).name}/bin/dinolab" if in_here else "dinolab", "ui"]
    if root != str(Path(DEFAULT_ROOT).absolute()):
        command += ["--root", result.store.shown]
    ui = shlex.join(command)
    console.print(f"MLflow UI: {ui}", soft_wrap=True)
    raise typer.Exit(INCOMPLETE if unfinished else DONE)


def print_json(content: Any) -> None:
    """Print `content` for a program: no console wraps it. NaN and infinities are null."""
    content = json.loads(json.dumps(content), parse_constant=lambda _: None)
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def old_studies_text(names: list[str]) -> str:
    """That a root holds studies which this version does not read."""
    from trainers.errors import listed

    made = "made by dinolab 0.1, which kept trials inside each study: that version reads them"
    return f"{listed(names)}: {made}"


def interval_text(ends: list[float] | None, level: str) -> str:
    return "–" if ends is None else f"{level} [{ends[0]:+.4f}, {ends[1]:+.4f}]"


def arms_table(made: "Plan") -> Table:
    table = Table("arm", "what differs", title="Arms")
    for column in ("parameters", "GFLOPs an image", "GFLOPs a step"):
        table.add_column(column, justify="right")
    for arm, cost in made.arms.items():
        changes = [f"{k}: {cost.before[k]} → {v}" for k, v in cost.change.items()]
        cells = (
            arm, "\n".join(changes) or "the base", f"{cost.parameters:,}",
            f"{cost.gigaflops_per_image:.4g}", f"{cost.gigaflops_per_step:.4g}",
        )  # fmt: skip
        table.add_row(*cells)
    return table


def show_metrics(metrics: dict[str, float], console: Console) -> None:
    """Print the metrics of a network as a whole, in the order in which they are described."""
    from trainers.metrics import EVALUATED

    table = Table("metric", "value", "meaning")
    for name, meaning in EVALUATED.items():
        if name in metrics:
            table.add_row(name, f"{metrics[name]:.4f}", meaning)
    console.print(table)


def show_rows(place: "Location", title: str, console: Console, most: int = 20) -> None:
    """The first rows of a parquet table, and where all of them are; nothing when it has none."""
    from trainers.data.arrow import read_table
    from trainers.errors import printable

    rows = read_table(place)
    if not len(rows):
        return
    table = Table(*rows.column_names, title=title, title_justify="left")
    for row in rows.slice(0, most).to_pylist():
        table.add_row(*(printable(str(value)) for value in row.values()))
    console.print(table)
    console.print(f"{len(rows)} rows in {place.shown}")
