"""The command watch: a live board of a study while it runs, from any machine that sees its root."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator import interrupt
from orchestrator.cli.exit_codes import INCOMPLETE, INTERRUPTED
from orchestrator.cli.options import (
    DEFAULT_ROOT,
    QuietOption,
    RootOption,
    absolute_root,
    name_of_study,
)
from orchestrator.cli.rendering import make_console
from trainers.errors import InputError, StoreError, printable

if TYPE_CHECKING:
    from dashboards.tables.board import Progress
    from dashboards.tables.watched import Seen, Watched
    from trainers.system.store import Store

PLAIN_WIDTH = 80
"""Columns where there is no terminal."""

LONGEST_NAME = 24
"""Columns for the name of an arm or a hypothesis."""

_CELLS = {
    "finished": ("done", "green"),
    "collapsed": ("coll", "yellow"),
    "diverged": ("div", "yellow"),
    "running": ("", "cyan"),
    "silent": ("quiet", "red"),
    "failed": ("fail", "red"),
    "interrupted": ("stop", "yellow"),
    "waiting": ("·", "dim"),
    "damaged": ("dmg", "red"),
    "skipped": ("–", "dim"),
    "ended": ("end", "dim"),
}
"""What stands in a cell of the board for each state, and its colour; a running one has a share."""

_CELL = 5

_MOST_REASONS = 5

_LABEL_STYLES = {"supported": "green", "refuted": "red", "equivalent": "green", "failed": "red"}


def watch(
    study: Annotated[
        str | None,
        typer.Argument(
            help="Name of a study, or its file; all unfinished if not given.", show_default=False
        ),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    every: Annotated[
        float, typer.Option(min=0.2, max=3600, metavar="SECONDS", help="Between two looks.")
    ] = 2.0,
    quiet: QuietOption = False,
) -> None:
    """Watch a study run: a live board of arms × seeds, until all its runs have ended.

    Step, speed and time left of each run at work; its loss and one measure of globality where they
    say nothing of an end point. It reads the run root alone, so it works from any machine that sees
    it. While runs are missing nothing is shown of an end point; a sequential design shows what its
    looks have shown. Without a terminal, with NO_COLOR or with --quiet the board is printed as
    plain lines whenever a run changes its state. The exit code is 3 where a run failed for good.
    """
    from trainers.system.store import open_store

    console = make_console()
    store = open_store(absolute_root(root, console))
    live = console.is_terminal and not (
        quiet or console.no_color or console.is_dumb_terminal or console.legacy_windows
    )
    if not live:
        width = console.width if console.is_terminal else PLAIN_WIDTH
        console = make_console(plain=True)
        console.width = width
    seen: list[Seen] = []
    try:
        boards = _chosen(store, study, console)
        if live:
            with (
                # Should the process be ended in the middle, the cursor is not left hidden.
                interrupt.before_leaving(lambda: console.show_cursor(True)),
                Live(console=console, auto_refresh=False, vertical_overflow="crop") as screen,
            ):
                for seen, note in _looks(boards, every):
                    shown = _page(seen, note, console.width, console.height)
                    screen.update(shown, refresh=True)
        else:
            seen = _print_changes(_looks(boards, every), console)
    except KeyboardInterrupt:
        # The usual end of watching, of which there is nothing to say.
        raise typer.Exit(INTERRUPTED) from None
    if any(_lacks_runs(one) for one in seen):
        raise typer.Exit(INCOMPLETE)


def _lacks_runs(seen: "Seen") -> bool:
    """Whether nothing more will come, and not all runs have a result."""
    from dashboards.tables.watched import ENDED

    return seen.complete and any(one.state not in ENDED for one in seen.progress.values())


def _chosen(store: "Store", study: str | None, console: Console) -> "list[Watched]":
    """The study that is named; else those of the root that are not complete, or all of them."""
    from dashboards.tables.board import studies_of
    from dashboards.tables.watched import Watched

    if study is not None:
        return [Watched(store, name_of_study(study, store))]
    chains, problems = studies_of(store)
    if not chains:
        raise InputError(
            problems[0] if problems else f"{store.shown} has no studies yet: run one first"
        )
    for problem in problems:
        console.print(problem)
    boards = [Watched(store, chain[-1].study) for chain in chains]
    return [one for one in boards if not one.look().complete] or boards


def _looks(boards: "Sequence[Watched]", every: float) -> "Iterator[tuple[list[Seen], str]]":
    """The studies now and again, and what there is to note, until all are complete."""
    seen: list[Seen] = []
    while True:
        try:
            seen, note = [one.look() for one in boards], ""
        except StoreError as error:
            if not seen:
                raise
            note = f"{error}; asked again"
        yield seen, note
        if not note and all(one.complete for one in seen):
            return
        time.sleep(every)


def _print_changes(looks: "Iterator[tuple[list[Seen], str]]", console: Console) -> "list[Seen]":
    """Prints each look that differs from the one before; the last one."""
    before: object = None
    seen: list[Seen] = []
    for seen, note in looks:
        now = (
            [
                [(place, one.state) for place, one in study.progress.items()] + [*study.told]
                for study in seen
            ],
            note,
        )
        if now != before:
            if before is not None:
                console.print()
            before = now
            console.print(_page(seen, note, console.width, None), soft_wrap=False)
    return seen


def _page(seen: "Sequence[Seen]", note: str, width: int, height: int | None) -> Group:
    """The boards of some studies; in `height` lines, if given, as far as they fit."""
    parts: list[RenderableType] = []
    for study in seen:
        parts += board_of(study, width, None if height is None else height // len(seen) - 1)
    if note:
        parts.append(_line(f"note: {note}"))
    return Group(*parts)


def board_of(seen: "Seen", width: int, height: int | None) -> list[RenderableType]:
    """A study in lines of at most `width` columns: counts, runs at work, hypotheses, its board.

    Where it would be higher than `height` lines, arms that have ended stand together in one.
    """
    runs = {one.key: one for one in seen.progress.values()}
    parts: list[RenderableType] = [
        _line(f"Study {seen.entry.study}", "bold"),
        Text(_summary(seen)),
    ]
    working = [one for one in runs.values() if one.state == "running"]
    if working:
        parts.append(_working(seen, working))
    reasons = _reasons(seen)
    parts += reasons[:_MOST_REASONS]
    if len(reasons) > _MOST_REASONS:
        parts.append(_line(f"and {len(reasons) - _MOST_REASONS} more: dinolab status"))
    parts += [
        _line(
            f"{_short(one.name)}: {one.label.upper() or 'not decided'} ({one.text})",
            _LABEL_STYLES.get(one.label, ""),
        )
        for one in seen.told
    ]
    if _lacks_runs(seen):
        parts.append(
            _line(f"a run failed: dinolab report {seen.entry.study} says what that means", "red")
        )
    elif not seen.told and not seen.complete and seen.entry.resolved.hypotheses:
        parts.append(_line("verdicts: none before all runs have ended", "dim"))
    # The summary may take a second line; the table of runs at work has a head.
    used = len(parts) + 1 + len(working)
    return parts + _arms(seen, width, None if height is None else height - used)


def _reasons(seen: "Seen") -> list[Text]:
    """Why runs ended otherwise than asked for; those of an arm that say the same in one line."""
    seeds: dict[tuple[str, str, str], list[int]] = {}
    for (arm, seed), one in seen.progress.items():
        if one.reason and one.state != "skipped":
            seeds.setdefault((arm, one.state, one.reason), []).append(seed)
    return [
        _line(
            f"{_short(arm)} {of[0] if len(of) == 1 else f'({len(of)} seeds)'}: {state}: {reason}",
            _CELLS[state][1],
        )
        for (arm, state, reason), of in seeds.items()
    ]


def _summary(seen: "Seen") -> str:
    counts = Counter(one.state for one in seen.progress.values())
    words = [
        f"{count} {state}" + (f" ({_CELLS[state][0]})" if _CELLS[state][0] else "")
        for state, count in sorted(counts.items())
    ]
    left = seen.seconds_left
    if left is not None:
        most = "at most " if seen.entry.resolved.design is not None else "about "
        words.append(f"{most}{duration(left)} left")
    return ", ".join(words)


def _working(seen: "Seen", working: "Sequence[Progress]") -> Table:
    of_key: dict[str, list[tuple[str, int]]] = {}
    for place, one in seen.progress.items():
        of_key.setdefault(one.key, []).append(place)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("at work", no_wrap=True, overflow="ellipsis", max_width=LONGEST_NAME)
    measure = "/".join(seen.globality.split("/")[1:])
    titles = ["seed", "step", "steps/s", "left"]
    titles += (["loss"] if seen.loss else []) + ([measure] if measure else [])
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True, overflow="ellipsis")
    for one in working:
        arm, seed = of_key[one.key][0]
        values = seen.latest.get(one.key, {})
        left = duration((one.steps - one.step) / one.rate) if one.rate else "–"
        rate = f"{one.rate:.3g}" if one.rate else "–"
        cells = [printable(arm), str(seed), f"{one.step}/{one.steps}", rate, left]
        cells += [_number(values, metric) for metric in (seen.loss, seen.globality) if metric]
        table.add_row(*map(Text, cells))
    return table


def _number(values: Mapping[str, float], metric: str) -> str:
    return f"{values[metric]:.4f}" if metric in values else "–"


def _arms(seen: "Seen", width: int, height: int | None) -> list[RenderableType]:
    """The board of arms × seeds, in parts side by side where the seeds are too many for a line."""
    seeds, arms = seen.entry.resolved.seeds, list(seen.entry.resolved.arms)
    name_width = min(LONGEST_NAME, max(len(printable(arm)) for arm in arms))
    cell = max(_CELL, *(len(str(seed)) for seed in seeds)) + 1
    per_line = max(1, (width - name_width - 1) // cell)
    parts = [seeds[start : start + per_line] for start in range(0, len(seeds), per_line)]
    states = {arm: {seen.progress[arm, seed].state for seed in seeds} for arm in arms}
    rest = ""
    if height is not None and (len(arms) + 1) * len(parts) > height:
        shown = [arm for arm in arms if states[arm] != {"finished"}]
        room = max(1, (height - 1) // len(parts) - 1)
        if hidden := len(shown) - room:
            # Those that wait for their first run are the last to be told.
            shown = (
                sorted(shown, key=lambda arm: states[arm] == {"waiting"}) if hidden > 0 else shown
            )
            shown = [arm for arm in arms if arm in shown[:room]]
        rest = f"and {len(arms) - len(shown)} other arms: dinolab status"
        arms = shown
    tables: list[RenderableType] = []
    for part in parts if arms else ():
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
        table.add_column(
            "arm", no_wrap=True, overflow="ellipsis", min_width=name_width, max_width=name_width
        )
        for seed in part:
            table.add_column(str(seed), justify="right", no_wrap=True, min_width=cell - 1)
        for arm in arms:
            table.add_row(Text(printable(arm)), *(_cell(seen.progress[arm, seed]) for seed in part))
        tables.append(table)
    return [*tables, *([_line(rest, "dim")] if rest else [])]


def _cell(one: "Progress") -> Text:
    text, style = _CELLS[one.state]
    return Text(text or f"{100 * one.step // max(1, one.steps)} %", style=style)


def _line(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def duration(seconds: float) -> str:
    """A time in words, of at most eight columns below 100 days."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    return (
        f"{minutes // 60} h {minutes % 60:02d}" if hours < 48 else f"{hours // 24} d {hours % 24} h"
    )
