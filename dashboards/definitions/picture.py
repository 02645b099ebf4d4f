"""The picture of a label, tag or word: its examples, as the rule judges them, as SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dashboards.definitions.examples import EXAMPLES, MOMENTS, Example, Moment, word_of
from dashboards.figures.rows import STYLE, Row, Scale, row_of
from dashboards.figures.style import PALETTE
from dashboards.page import rendered

SCALE = Scale(3.0)

_TEMPLATE = Path(__file__).with_name("picture.svg.jinja")

_MARKS: dict[Moment, tuple[str, str]] = {
    "stated": ("diamond", PALETTE[0]),
    "changed": ("diamond-open", PALETTE[0]),
    "results": ("circle", PALETTE[1]),
}


class Shown(NamedTuple):
    """A row, and what stands above it."""

    asked: str
    found: str
    row: Row


def picture(name: str, *, alone: bool = False) -> str:
    """SVG of what a label, tag or word means; `alone` with colours of its own, light and dark.

    Raises ValueError where the rule says something else of its examples.
    """
    rows = [row for example in EXAMPLES.get(name, ()) for row in _rows(name, example)]
    return rendered(
        _TEMPLATE,
        {},
        alone=alone,
        rows=rows,
        moments=[(moment, *_MARKS[moment]) for moment in _moments(name)],
        height=62 * len(rows) + 20 if rows else 72,
        described=described(name),
        style=STYLE,
        scale=SCALE,
    )


def described(name: str) -> str:
    """What the picture of a definition shows, in words; no quotation marks."""
    if name in MOMENTS:
        return f"{', then '.join(_moments(name)).capitalize()}: {name}."
    return " ".join(
        f"{shown.asked.capitalize()}: mean {shown.row.mean:.1f} s, 95 % interval {low:.1f} s to "
        f"{high:.1f} s, {shown.found}."
        for example in EXAMPLES[name]
        for shown in _rows(name, example)
        for low, high in [shown.row.intervals[0][0]]
    )


def _moments(name: str) -> Sequence[Moment]:
    """What happened to a hypothesis of which this word is said; nothing where it is no word."""
    if name not in MOMENTS:
        return ()
    if (word := word_of(MOMENTS[name])) != name:
        raise ValueError(f"an example of {name} is {word}")
    return MOMENTS[name]


def _rows(name: str, example: Example) -> list[Shown]:
    """What is drawn of an example of `name`: its hypothesis, and its control if it has one."""
    verdict = example.judged()
    lost = sum(pair.difference is None for pair in verdict.pairs)
    row = row_of(
        verdict.label,
        example.direction,
        [(one, "") for one in example.differences if one is not None],
        verdict.mean,
        verdict.interval,
        verdict.interval_equivalence,
    )
    asked = example.direction + (f", {lost} of {len(verdict.pairs)} runs diverged" if lost else "")
    found = verdict.label + (f", {name}" if name in verdict.tags else "")
    rows = [Shown(asked, found, row)]
    control = verdict.control
    if control and control.interval:
        seeds = [(one, "") for one in example.control]
        row = Row(seeds, control.mean, [(control.interval, 2)])
        found = {"differs": "differs", "alike": "does not differ"}[control.found]
        rows.append(Shown("its control", found, row))
    return rows
