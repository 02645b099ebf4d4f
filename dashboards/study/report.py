"""A study's run folder -> `report.html`, one file that opens without a network.

The report judges the runs as they are now and says what is missing; it works from the first moment
of a study to its end. Text from study files, data and error messages is escaped.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from ablations.registration import ArmFacts
from ablations.verdicts.evidence import value_of
from ablations.verdicts.looks import saved_text
from ablations.verdicts.rule import FEWEST_SEEDS
from dashboards.definitions.picture import picture
from dashboards.definitions.text import DEFINITIONS, READING
from dashboards.figures.compared import compared
from dashboards.figures.curves import collapse_metrics
from dashboards.figures.rows import STYLE
from dashboards.figures.style import INK, LABEL_COLOURS, arm_styles
from dashboards.page import packed, rendered
from dashboards.study.answers import JUDGED, answers, scope
from dashboards.study.chain import registrations
from dashboards.study.claims import asked, forest_scale, shown_hypotheses
from dashboards.study.figures import in_parts
from dashboards.study.maps import every_sheet, heat, photographs, shown_sheets
from dashboards.study.packing import drawn, ids, numbers
from dashboards.study.tables import every_table
from dashboards.tables.derived import VERDICTS, interval_shown
from dashboards.tables.reading import StudyRun
from trainers.config import leaves

REPORT = "report.html"
FIGURES = "figures"

FOREST = "verdict_intervals"
"""The figure that is a page of its own only; the report draws its forest without a script."""

PLOTLY = "plotly.min.js"
"""Beside the pages of figures, which share it."""

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_SHOWN = {"displayModeBar": False, "responsive": True}


def write_report(
    study: StudyRun, verdicts: Mapping[str, Any], figures: Mapping[str, go.Figure]
) -> str:
    """Writes `report.html` into the run folder of `study`, judged as `verdicts`."""
    page = report_page(study, verdicts, figures, stale=_is_stale(study, verdicts))
    return _put(study, REPORT, page)


def report_page(
    study: StudyRun,
    verdicts: Mapping[str, Any],
    figures: Mapping[str, go.Figure],
    *,
    stale: bool = False,
) -> bytes:
    """What `report.html` holds; `stale` where `verdicts.json` says something else."""
    shown = shown_hypotheses(study, verdicts)
    parts = in_parts(study, verdicts, {n: one for n, one in figures.items() if n != FOREST})
    sheets = every_sheet(study.maps)
    page = rendered(
        _TEMPLATE,
        _FILTERS,
        study=study,
        registered=study.entry,
        registrations=registrations(study),
        answers=answers(study, verdicts),
        judged=JUDGED,
        stated_so=_stated_so(verdicts),
        asked=asked(verdicts, shown),
        hypotheses=shown,
        scale=forest_scale(shown),
        style=STYLE,
        verdicts=verdicts,
        unfinished=_unfinished(study),
        saved=saved_text(study.runs, study.design) if study.design else "",
        left_out=_left_out(study),
        stale=stale,
        figures=ids(parts),
        maps=study.maps,
        sheets=shown_sheets(sheets),
        photographs=photographs(sheets),
        heat=Markup(heat()),
        packed={
            "plotly": packed(get_plotlyjs()),
            "figures": packed(drawn(parts)),
            "numbers": packed(numbers(every_table(study, verdicts))),
        },
        arms=_arms(study),
        place={arm: number for number, arm in enumerate(study.arms, 1)},
        collapse=_collapse_table(study),
        endpoints=_endpoints(study),
        limits=_limits(study),
        reading=READING,
        definitions={
            name: {"text": text, "picture": Markup(picture(name))}
            for name, text in DEFINITIONS.items()
        },
        label_colours=LABEL_COLOURS,
        ink=Markup(", ".join(str(part) for part in bytes.fromhex(INK[1:]))),
    )
    return page.encode()


def write_figures(study: StudyRun, figures: Mapping[str, go.Figure]) -> list[str]:
    """Writes every figure as a page of its own into `figures/`, and plotly.js for all of them.

    Each opens without a network.
    """
    return [_put(study, name, content) for name, content in figure_pages(figures)]


def figure_pages(figures: Mapping[str, go.Figure]) -> Iterator[tuple[str, bytes]]:
    """Names in the folder of a study and contents of the pages of figures, and of plotly.js."""
    yield f"{FIGURES}/{PLOTLY}", get_plotlyjs().encode()
    for name, figure in figures.items():
        page = figure.to_html(include_plotlyjs=PLOTLY, div_id=name, config=_SHOWN)
        yield f"{FIGURES}/{name}.html", page.encode()


def _stated_so(verdicts: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """The ways in which hypotheses were stated: word, why, and of which."""
    ways: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, entry in verdicts["hypotheses"].items():
        ways[entry["stated"]["word"], entry["stated"]["why"]].append(name)
    return [(word, why, names) for (word, why), names in ways.items()]


def _unfinished(study: StudyRun) -> list[dict[str, Any]]:
    """Runs that did not finish, by arm, status and reason."""
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for (arm, seed), run in study.runs.items():
        if run.status not in ("finished", "skipped"):
            groups[arm, run.status, run.reason].append(seed)
    return [
        {"arm": arm, "status": status, "reason": reason, "seeds": ", ".join(map(str, seeds))}
        for (arm, status, reason), seeds in groups.items()
    ]


def _left_out(study: StudyRun) -> list[dict[str, Any]]:
    """Of which arms and queries some values at the end were undefined, and so are in no mean."""
    groups: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for (arm, seed), run in study.runs.items():
        for name in run.end:
            queries, _, last = name.rpartition("/")
            if last == "undefined" and "/" in queries and run.end[name] > 0:
                groups[arm, queries][seed] = run.end[name]
    return [
        {
            "arm": arm,
            "queries": queries,
            "seeds": ", ".join(map(str, shares)),
            "share": f"{max(shares.values()):.2%}",
        }
        for (arm, queries), shares in groups.items()
    ]


def _put(study: StudyRun, name: str, content: bytes) -> str:
    key = f"{study.folder}/{name}"
    study.store.put(key, content)
    return key


def _is_stale(study: StudyRun, verdicts: Mapping[str, Any]) -> bool:
    """Whether `verdicts.json` is there and says something else than the runs say now."""
    content = study.store.get(f"{study.folder}/{VERDICTS}")
    if content is None:
        return False
    try:
        written = json.loads(content)
    except ValueError:
        return True
    if not isinstance(written, dict):
        return True
    return any(written.get(name) != value for name, value in verdicts.items())


def _arms(study: StudyRun) -> list[dict[str, Any]]:
    """What each arm changes, and what else changes with it."""
    base = dict(leaves(study.entry.config))
    facts = {arm: study.entry.arms.get(arm, ArmFacts()) for arm in study.arms}
    first = facts[study.arms[0]] if study.arms else ArmFacts()
    styles = arm_styles(study.arms)
    return [
        {
            "name": arm,
            "colour": styles[arm].colour,
            "knobs": [
                {"name": knob, "old": base.get(knob), "new": value}
                for knob, value in study.entry.resolved.arms[arm].items()
            ],
            "confounds": facts[arm].confounds,
            "sizes": [
                _compared(getattr(facts[arm], name), getattr(first, name))
                for name in ("parameters", "gigaflops_per_image")
            ],
        }
        for arm in study.arms
    ]


def _compared(value: float | None, base: float | None) -> str:
    """A number and, where it differs, its difference from that of the first arm."""
    if value is None:
        return "unknown"
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return shown if not base or value == base else f"{shown} ({value / base - 1:+.2%})"


def _collapse_table(study: StudyRun) -> dict[str, Any]:
    """Collapse diagnostics at the last step: mean over the seeds that have one, and their range."""
    metrics = collapse_metrics(study)
    rows = []
    for arm in study.arms:
        cells = []
        for metric in metrics:
            found = [value_of(study.runs[arm, seed], metric) for seed in study.seeds]
            values = [value for value in found if value is not None]
            cells.append(
                {"mean": math.fsum(values) / len(values), "low": min(values), "high": max(values)}
                if values
                else None
            )
        ended = Counter(study.runs[arm, seed].status for seed in study.seeds)
        status = ", ".join(f"{count} {name}" for name, count in sorted(ended.items()))
        rows.append({"arm": arm, "status": status, "cells": cells})
    return {"metrics": metrics, "rows": rows}


def _endpoints(study: StudyRun) -> list[dict[str, Any]]:
    """Every value that a hypothesis or a gate rests on, by arm and seed."""
    asked: dict[tuple[str, bool], set[str]] = defaultdict(set)
    for hypothesis in study.hypotheses.values():
        for arm in hypothesis.weights if hypothesis.metric else ():
            asked[hypothesis.metric_of(arm), hypothesis.minus_start].add(arm)
    for gate in study.gates.values():
        asked[gate.metric, gate.since_start] |= set(gate.arms)
    tables = []
    for (metric, minus_start), named in asked.items():
        arms = [arm for arm in study.arms if arm in named]
        rows = []
        for arm in arms:
            runs = [study.runs[arm, seed] for seed in study.seeds]
            cells = [
                {
                    "value": value_of(run, metric, minus_start),
                    "status": "" if run.status == "finished" else run.status,
                }
                for run in runs
            ]
            rows.append({"arm": arm, "cells": cells})
        title = metric + (", minus step 0" if minus_start else "")
        tables.append({"title": title, "rows": rows})
    return tables


def _limits(study: StudyRun) -> list[str]:
    """What this study cannot say, whatever its verdicts."""
    seeds = len(study.seeds)
    few = f" Fewer than {FEWEST_SEEDS} are descriptive only." if seeds < FEWEST_SEEDS else ""
    return [
        f"The unit of replication is the training seed, and there are {seeds} for each arm.{few} "
        "Images, layers and heads lie within a run; more of them would not make the evidence "
        "broader.",
        scope(study),
        "Inconclusive does not mean that there is no effect; only equivalent, or a supported "
        "“holds”, excludes one as large as the smallest effect of interest.",
        "p-values are adjusted within a family of hypotheses, not over all of them. A verdict that "
        "is exploratory was stated when results of its arms existed: whoever stated it may have "
        "seen them, and its p-value is no evidence. Registrations show what this run root has; "
        "that nothing was deleted from it only a witness outside can show.",
    ]


def _number(value: float | None, digits: int = 3) -> str:
    """A number of a few digits, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}g}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "–" if ends is None else f"[{_number(ends[0])}, {_number(ends[1])}]"


def _code(value: object) -> str:
    """A knob's value as JSON."""
    return json.dumps(value, ensure_ascii=False)


def _breakable(name: str) -> Markup:
    """A long name that may be broken after its slashes and underscores, and nowhere else.

    What it says of the direction of writing ends with it.
    """
    broken = escape(name).replace("/", Markup("/<wbr>")).replace("_", Markup("_<wbr>"))
    return Markup("<bdi>{}</bdi>").format(broken)


def _linked(text: str) -> Markup:
    """Text in which each label, tag and word is a link to what it means."""
    names = "|".join(sorted(DEFINITIONS, key=len, reverse=True))
    link = r'<a href="#meaning-\1">\1</a>'
    return Markup(re.sub(rf"\b({names})\b", link, str(escape(text))))


def _prose(text: str) -> Markup:
    """Text in which what stands in backticks is code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


_FILTERS: dict[str, Callable[..., Any]] = {
    "number": _number,
    "interval": _interval,
    "code": _code,
    "breakable": _breakable,
    "compared": compared,
    "linked": _linked,
    "prose": _prose,
    "interval_shown": interval_shown,
}
