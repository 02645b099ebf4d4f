"""The picture of a label, tag or word: its examples, as the rule judges them, as SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ablations.spec import Direction
from ablations.statistics.effect_sizes import Interval
from dashboards.definitions.examples import EXAMPLES, MOMENTS, Example, Moment, word_of
from dashboards.figures.forest import LABEL_SYMBOLS, PREDICTED
from dashboards.figures.style import FONT, LABEL_COLOURS, MUTED, PALETTE
from dashboards.page import rendered

EDGE = 2.8
"""Largest effect that has room, in smallest effects."""

_TEMPLATE = Path(__file__).with_name("picture.svg.jinja")

_PREDICTED: dict[Direction, tuple[Interval, ...]] = {
    "rises": ((1, EDGE),),
    "falls": ((-EDGE, -1),),
    "differs": ((-EDGE, -1), (1, EDGE)),
    "holds": ((-1, 1),),
}

_SHAPES = {
    "circle": "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "square": "m-5 -5h10v10h-10z",
    "diamond": "m0 -6l6 6l-6 6l-6 -6z",
    "x": "m-5 -5l10 10m0 -10l-10 10",
}


_MARKS: dict[Moment, tuple[str, str]] = {
    "stated": ("diamond", PALETTE[0]),
    "changed": ("diamond-open", PALETTE[0]),
    "results": ("circle", PALETTE[1]),
}


class Row(NamedTuple):
    """What is drawn of a hypothesis, or of its control."""

    asked: str
    found: str
    predicted: Sequence[Interval]
    """where the prediction lies"""
    seeds: Sequence[float]
    mean: float
    intervals: Sequence[tuple[Interval, int]]
    """each with the width of its line; the first is that of 95 %"""
    colour: str
    symbol: str


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
        shapes=_SHAPES,
        predicted=PREDICTED,
        muted=MUTED,
        font=FONT,
    )


def described(name: str) -> str:
    """What the picture of a definition shows, in words; no quotation marks."""
    if name in MOMENTS:
        return f"{', then '.join(_moments(name)).capitalize()}: {name}."
    return " ".join(
        f"{row.asked.capitalize()}: mean {row.mean:.1f} s, 95 % interval {low:.1f} s to "
        f"{high:.1f} s, {row.found}."
        for example in EXAMPLES[name]
        for row in _rows(name, example)
        for low, high in [row.intervals[0][0]]
    )


def _moments(name: str) -> Sequence[Moment]:
    """What happened to a hypothesis of which this word is said; nothing where it is no word."""
    if name not in MOMENTS:
        return ()
    if (word := word_of(MOMENTS[name])) != name:
        raise ValueError(f"an example of {name} is {word}")
    return MOMENTS[name]


def _rows(name: str, example: Example) -> list[Row]:
    """What is drawn of an example of `name`: its hypothesis, and its control if it has one."""
    verdict = example.judged()
    lost = sum(pair.difference is None for pair in verdict.pairs)
    assert verdict.mean is not None
    assert verdict.interval is not None
    assert verdict.interval_equivalence is not None
    rows = [
        Row(
            asked=example.direction
            + (f", {lost} of {len(verdict.pairs)} runs diverged" if lost else ""),
            found=verdict.label + (f", {name}" if name in verdict.tags else ""),
            predicted=_PREDICTED[example.direction],
            seeds=[one for one in example.differences if one is not None],
            mean=verdict.mean,
            intervals=((verdict.interval, 2), (verdict.interval_equivalence, 6)),
            colour=LABEL_COLOURS[verdict.label],
            symbol=LABEL_SYMBOLS[verdict.label],
        )
    ]
    control = verdict.control
    if control and control.mean is not None and control.interval:
        rows.append(
            Row(
                asked="its control",
                found={"differs": "differs", "alike": "does not differ"}[control.found],
                predicted=(),
                seeds=example.control,
                mean=control.mean,
                intervals=((control.interval, 2),),
                colour=MUTED,
                symbol="circle",
            )
        )
    return rows
