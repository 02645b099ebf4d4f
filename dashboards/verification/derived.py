"""Results, verdicts, report and figures of a study, made again in memory and compared."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ablations.registration import shortened
from dashboards.study.figures import every_figure
from dashboards.study.report import REPORT, figure_pages, report_page
from dashboards.tables.derived import RESULTS, VERDICTS, judged, save_results, verdicts_content
from dashboards.tables.reading import StudyRun
from dashboards.verification.finding import Finding, Kind
from dashboards.verification.tables import same_table, writers_of
from trainers.config import leaves
from trainers.system.store import Store

_AGAIN = "`dinolab report` makes it again"


@dataclass(kw_only=True)
class Derived:
    """What was compared of the files that are made from the trials of a study."""

    compared: list[str] = field(default_factory=list)
    """keys of files that are what the trials give"""
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def found(self, kind: Kind, where: str, what: str) -> None:
        """Note what is wrong."""
        self.findings.append(Finding(kind=kind, where=where, what=what))


def check_derived(study: StudyRun, store: Store, *, finished: bool) -> Derived:
    """Each file against what `study` gives, which is read from its trials alone.

    Files of a study that is not `finished` may be missing, or older than its trials.
    """
    derived = Derived()
    folder = study.folder
    if not finished and not _judged_once(store, folder):
        derived.notes.append("it has not been judged yet: no results, verdicts or report")
        return derived
    if not _check_results(study, store, derived, finished=finished):
        derived.notes.append(
            f"{folder}/{RESULTS} was made from other runs than there are now: verdicts, report and "
            "figures are not compared"
        )
        return derived
    verdicts = judged(study)
    _check_verdicts(store.get(f"{folder}/{VERDICTS}"), verdicts, folder, derived)
    figures = every_figure(study, verdicts)
    _check_page(store, f"{folder}/{REPORT}", report_page(study, verdicts, figures), derived)
    for name, page in figure_pages(figures):
        _check_page(store, f"{folder}/{name}", page, derived)
    return derived


def _judged_once(store: Store, folder: str) -> bool:
    names = store.names(folder)
    return any(name in names for name in (RESULTS, VERDICTS, REPORT))


def _missing(key: str, derived: Derived) -> None:
    derived.found("missing", key, f"the trials are there; {_AGAIN}")


def _check_page(store: Store, key: str, made: bytes, derived: Derived) -> None:
    content = store.get(key)
    if content is None:
        _missing(key, derived)
    elif content == made:
        derived.compared.append(key)
    else:
        at = next(
            (n for n, (one, two) in enumerate(zip(content, made, strict=False)) if one != two),
            min(len(content), len(made)),
        )
        what = f"it is not the page that the trials give, from byte {at} on; {_AGAIN}"
        derived.found("differs", key, what)


def _check_verdicts(
    content: bytes | None, verdicts: Mapping[str, Any], folder: str, derived: Derived
) -> None:
    key = f"{folder}/{VERDICTS}"
    if content is None:
        _missing(key, derived)
        return
    if content == verdicts_content(verdicts):
        derived.compared.append(key)
        return
    try:
        written = dict(leaves(json.loads(content)))
    except (ValueError, AttributeError, RecursionError):
        derived.found("damaged", key, f"it is no JSON object; {_AGAIN}")
        return
    if problems := list(_other_values(written, dict(leaves(verdicts)))):
        derived.found("differs", key, f"{shortened(problems)}; {_AGAIN}")
    else:
        derived.found("damaged", key, f"it is not written as dinolab writes it; {_AGAIN}")


def _other_values(written: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys((*made, *written)):
        one, two = (json.dumps(of.get(name), ensure_ascii=False) for of in (written, made))
        if name not in written:
            yield f"{name} is missing"
        elif name not in made:
            yield f"{name} is not of this study"
        elif one != two:
            yield f"{name} is {_brief(one)}, the trials give {_brief(two)}"


def _brief(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"


def _check_results(study: StudyRun, store: Store, derived: Derived, *, finished: bool) -> bool:
    """Whether the trials are those that the file was made from; notes what is wrong with it."""
    key = f"{study.folder}/{RESULTS}"
    content = store.get(key)
    if content is None:
        _missing(key, derived)
        return True
    with tempfile.TemporaryDirectory(prefix="dinolab-") as scratch:
        path = Path(scratch) / RESULTS
        save_results(study, path)
        made = path.read_bytes()
    if same_table(content, made, writers_of(study.chain)):
        derived.compared.append(key)
        return True
    table = pq.read_table(pa.BufferReader(made))
    try:
        written = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError, ValueError):
        derived.found("damaged", key, f"it cannot be read; {_AGAIN}")
        return True
    if not written.schema.equals(table.schema, check_metadata=True):
        derived.found("differs", key, f"it has other columns or metadata; {_AGAIN}")
        return True
    before, now = _counts(written), _counts(table)
    if before == now:
        if what := _first(written, table):
            derived.found("differs", key, f"{what}; {_AGAIN}")
        else:
            derived.found("damaged", key, f"it is not written as dinolab writes it; {_AGAIN}")
        return True
    if lost := [place for place in before if place not in now]:
        for arm, seed in lost:
            what = f"{key} has its values, and the run root has not"
            derived.found("missing", f"arm {arm}, seed {seed}", what)
        return False
    if not finished and all(before.get(place, 0) <= rows for place, rows in now.items()):
        return False
    others = [
        f"arm {arm}, seed {seed} has {before.get((arm, seed), 0):,} values, its trial {rows:,}"
        for (arm, seed), rows in now.items()
        if before.get((arm, seed), 0) != rows
    ]
    derived.found("differs", key, f"{shortened(others)}; {_AGAIN}")
    return True


def _counts(table: pa.Table) -> dict[tuple[str, int], int]:
    """How many values each arm and seed has."""
    grouped = table.group_by(["arm", "seed"]).aggregate([([], "count_all")])
    columns = (grouped[name].to_pylist() for name in ("arm", "seed", "count_all"))
    return {(arm, seed): rows for arm, seed, rows in zip(*columns, strict=True)}


def _first(written: pa.Table, made: pa.Table) -> str:
    """The first value that is another; empty where none is. Both have as many of each run."""
    places = []
    for name in made.column_names:
        one, two = written[name].combine_chunks(), made[name].combine_chunks()
        both_null = pc.and_(pc.is_null(one), pc.is_null(two))
        same = pc.or_(pc.fill_null(pc.equal(one, two), False), both_null)
        if (at := pc.index(same, False).as_py()) >= 0:
            places.append((at, name))
    if not places:
        return ""
    at, name = min(places)
    place = made.slice(at, 1).to_pylist()[0]
    return (
        f"arm {place['arm']}, seed {place['seed']}, {place['metric']} at step {place['step']}: "
        f"{name} is {written[name][at].as_py()}, its trial has {place[name]}"
    )
