"""What the parts found, on disk as soon as it is known: `figures.json` and `table.md`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from trainers.system.atomic import replace, replace_json

FIGURES, TABLE, FAILURES = "figures.json", "table.md", "failures.txt"

Status = Literal["running", "done", "failed", "cut", "skipped"]


def goal(text: str, *, met: bool) -> str:
    """A goal and whether it was reached."""
    return f"{text}: {'met' if met else '**not met**'}"


class Record:
    """The files of a whole call. One process writes them at a time: a part, or who started it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> dict[str, Any]:
        """All that is written so far."""
        tree: dict[str, Any] = json.loads((self.folder / FIGURES).read_text())
        return tree

    def write(self, tree: dict[str, Any]) -> None:
        """Both files, each whole or as it was."""
        replace_json(self.folder / FIGURES, tree)
        replace(self.folder / TABLE, table(tree).encode())

    def part(self, name: str, title: str = "") -> "Part":
        """Where a part writes what it finds."""
        return Part(self, name, title)


class Part:
    """What one part has found. Every call writes the files anew."""

    def __init__(self, record: Record, name: str, title: str) -> None:
        self.record, self.name, self.title = record, name, title

    def figure(self, name: str, value: Any) -> None:
        """A number, or what JSON can hold, by its name."""
        self._change(lambda part: part["figures"].update({name: value}))

    def row(self, what: str, ours: str, peer: str = "", ratio: str = "", goal: str = "") -> None:
        """A line of the table."""
        line = {"what": what, "ours": ours, "peer": peer, "ratio": ratio, "goal": goal}
        self._change(lambda part: part["rows"].append(line))

    def note(self, text: str) -> None:
        """A sentence below the table, once."""
        self._change(lambda part: part["notes"].append(text) if text not in part["notes"] else None)

    def listing(self, title: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        """A table of its own, below."""
        whole = {"title": title, "heads": list(heads), "rows": [list(row) for row in rows]}
        self._change(lambda part: part["lists"].append(whole))

    def status(self, status: Status, reason: str = "", seconds: float = 0.0) -> None:
        """How the part stands."""
        now = {"status": status, "reason": reason, "seconds": round(seconds, 1)}
        self._change(lambda part: part.update(now))

    def fail(self, what: str, traceback: str) -> None:
        """Keep a traceback for whoever mends it, and say so below the table."""
        with (self.record.folder / FAILURES).open("a") as file:
            file.write(f"{self.name}: {what}\n{traceback.strip()}\n\n")
        self.note(f"{what} failed ({traceback.strip().splitlines()[-1]}); see {FAILURES}.")

    def _change(self, change: Any) -> None:
        tree = self.record.read()
        empty = {"title": self.title, "figures": {}, "rows": [], "notes": [], "lists": []}
        change(tree["parts"].setdefault(self.name, empty))
        self.record.write(tree)


def table(tree: dict[str, Any]) -> str:
    """The Markdown of all that was found."""
    lines = []
    if tree["toy"]:
        lines += [
            "**TOY: a CPU and models of toy size. These figures say nothing about a GPU.**",
            "",
        ]
    lines += [f"{tree['machine']}. `{tree['command']}`, {tree['date']}.", ""]
    lines += ["| what | ours | peer | ours is | goal |", "| --- | --- | --- | --- | --- |"]
    notes, lists = [], []
    for name, part in tree["parts"].items():
        state = _state(part)
        lines.append(f"| **{part['title'] or name}**{state} | | | | |")
        lines += [_line(row.values()) for row in part["rows"]]
        notes += [f"- {part['title'] or name}: {note}" for note in part["notes"]]
        lists += part["lists"]
    if notes:
        lines += ["", *notes]
    for each in lists:
        lines += ["", each["title"], "", _line(each["heads"]), _line(["---"] * len(each["heads"]))]
        lines += map(_line, each["rows"])
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _state(part: dict[str, Any]) -> str:
    status, reason = part.get("status", "running"), part.get("reason", "")
    if status == "done":
        return ""
    shown = {"running": "cut while it ran", "cut": "cut", "skipped": "skipped"}.get(status, status)
    return f" ({shown}{': ' if reason else ''}{reason})"
