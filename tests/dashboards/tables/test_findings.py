"""Every number of docs/findings.md comes out of the published values of the ladder again.

Values are read from `results.parquet`; what is made of them is written here, from the equations.
"""

import itertools
import json
import re
from collections.abc import Mapping

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy import stats

from tests.dashboards.published import DOCS

PAGE = (DOCS / "findings.md").read_text()
VERDICTS = json.loads((DOCS / "ladder" / "verdicts.json").read_text())
SEEDS = 8
STATED = {str(entry["hypothesis"]["smallest_effect"]) for entry in VERDICTS["hypotheses"].values()}
RUNGS = ("grid_4", "grid_6", "baseline", "grid_12", "depth_6", "long_4")
GAP, INFLUENCE = "globality/contrast/gyration", "influence/contrast/gyration"
LOCAL, BIAS = "globality/patch/locality", "shuffled/contrast/positional_bias"
ASKED = {
    "bias": (BIAS, {"baseline": 1.0}),
    "tied": (GAP, {"cls_position_tied": 1.0, "baseline": -1.0}),
    "gap": (GAP, {"baseline": 1.0}),
    "learned": (GAP, {"baseline": 1.0, "untrained": -1.0}),
    "loss": (GAP, {"baseline": 1.0, "loss_on_patches": -1.0}),
    "influence": (INFLUENCE, {"baseline": 1.0}),
    "loss_influence": (INFLUENCE, {"baseline": 1.0, "loss_on_patches": -1.0}),
    "local": (LOCAL, {"baseline": 1.0}),
    "locality": (LOCAL, {"baseline": 1.0}),
    "dino": (GAP, {"baseline": 1.0, "supervised": -1.0}),
}
CONTROLS = ("cls_window_1", "cls_uniform", "patch_window_1", "patch_uniform", "untrained")
NUMBER = re.compile(r"[+−]?(?<![\w.])\d*\.\d+(?![\w.])")
"""With a point: the others are counts, dates and names."""

Values = NDArray[np.float64]


def _of_the_end() -> tuple[dict[tuple[str, str], Values], dict[tuple[str, str], Values]]:
    """Values by arm and metric, in order of seeds: at step 0, and at the last step of the arm."""
    table = pq.read_table(DOCS / "ladder" / "results.parquet")
    table = table.filter(pc.is_null(table["layer"]))
    last: dict[str, int] = {}
    columns = [table[name].to_pylist() for name in ("arm", "metric", "seed", "step", "value")]
    for arm, step in zip(columns[0], columns[3], strict=True):
        last[arm] = max(step, last.get(arm, 0))
    start: dict[tuple[str, str], dict[int, float]] = {}
    end: dict[tuple[str, str], dict[int, float]] = {}
    for arm, metric, seed, step, value in zip(*columns, strict=True):
        for which, there in ((start, step == 0), (end, step == last[arm])):
            if there:
                which.setdefault((arm, metric), {})[seed] = value
    return _in_order(start), _in_order(end)


def _in_order(
    found: Mapping[tuple[str, str], Mapping[int, float]],
) -> dict[tuple[str, str], Values]:
    return {key: np.array([by[seed] for seed in sorted(by)]) for key, by in found.items()}


START, END = _of_the_end()


def table_of(first: str) -> list[list[str]]:
    """The rows of the page's table whose head begins with that cell."""
    lines = PAGE.splitlines()
    (head,) = (i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[head + 2 :])
    return [cells_of(row) for row in rows]


def cells_of(line: str) -> list[str]:
    """The cells of a row of a table."""
    return [cell.strip(" `") for cell in line.strip("|").split("|")]


def shown(value: float, digits: int = 4) -> str:
    """A number as the page has it."""
    return f"{value:+.{digits}f}".replace("-", "−")


def with_interval(values: Values) -> str:
    """The mean and its 95 % t interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = values.mean()
    return f"{shown(mean)} [{shown(mean - half)}, {shown(mean + half)}]"


def on(rung: str, arm: str) -> str:
    """The name of an arm on a rung."""
    if arm == "baseline":
        return rung
    return arm if rung == "baseline" else f"{rung}+{arm}"


def contrast(metric: str, weights: Mapping[str, float], rung: str = "baseline") -> Values:
    """The weighted sum over arms on a rung, by seed."""
    values = [weight * END[on(rung, arm), metric] for arm, weight in weights.items()]
    assert all(len(one) == SEEDS for one in values)
    return np.sum(values, axis=0)


def signflip_p(values: Values) -> float:
    """Two-sided, exact: how often signs by chance give a sum as far from 0."""
    signs = np.array(list(itertools.product((-1, 1), repeat=len(values))))
    sums = np.abs((signs * values).sum(1))
    return float((sums >= abs(values.sum()) * (1 - 1e-12)).mean())


def by_seed(name: str) -> Values:
    """What a hypothesis of that name is judged by, from what the study file says it is."""
    asked, turns, rung = name.partition("_turns_with_the_grid:")
    if turns:
        values = contrast(*ASKED[asked], rung=rung)
        return -values if asked == "bias" else values
    asked, _, which = name.rpartition("_by_")
    if which == "grid":
        places = np.array([4.0, 6, 8, 12])
        values = np.array([contrast(*ASKED[asked], rung=rung) for rung in RUNGS[:4]])
        return np.asarray(np.polyfit(places, values, 1)[0] * (places[-1] - places[0]))
    rung = {"depth": "depth_6", "steps": "long_4"}[which]
    return contrast(*ASKED[asked], rung=rung) - contrast(*ASKED[asked])


def test_all_runs_are_there_and_have_finished() -> None:
    arms = {arm for arm, _ in END}
    assert len(arms) == 30
    for arm in arms:
        assert len(END[arm, "knn/cls_top1"]) == SEEDS
        assert np.isfinite(END[arm, "knn/cls_top1"]).all()


def test_what_rungs_have_learned() -> None:
    rows = table_of("rung")
    assert tuple(rung for rung, *_ in rows) == RUNGS
    for rung, *_, before, after, pixels, colour, histogram, learned in rows:
        start, end = START[rung, "knn/cls_top1"], END[rung, "knn/cls_top1"]
        assert (before, after) == (f"{start.mean():.3f}", f"{end.mean():.3f}")
        found = [pixels, colour, histogram]
        gates = [
            VERDICTS["gates"][gate]["arms"][rung]
            for gate in ("beats_pixels", "beats_mean_colour", "beats_histogram")
        ]
        assert found == [shown(end.mean() - gate["reference"], 3) for gate in gates]
        above = [end.mean() - start.mean(), *(end.mean() - gate["reference"] for gate in gates)]
        assert learned == ("yes" if min(above) >= 0.1 else "no")
        passed = [
            VERDICTS["gates"]["learns"]["arms"][rung]["passed"],
            *(g["passed"] for g in gates),
        ]
        assert passed == [one >= 0.1 for one in above]


def test_what_controls_do() -> None:
    rows = table_of("end point")
    assert len(rows) == 4
    for metric, *cells in rows:
        assert cells == [shown(END[arm, metric].mean()) for arm in (*CONTROLS, "baseline")], metric


def test_contrasts_on_every_rung() -> None:
    rows = table_of("contrast")
    assert len(rows) == 10
    for name, metric, *cells in rows:
        arms = name.split(" − ")
        weights = dict(zip(arms, (1.0, -1.0), strict=False))
        for rung, cell in zip(RUNGS, cells, strict=True):
            expected = "–"
            if arms == ["baseline"] or rung != "long_4":
                expected = with_interval(contrast(metric, weights, rung))
            assert cell.strip("*") == expected, (name, rung)


def test_hypotheses() -> None:
    rows = table_of("hypothesis")
    assert [name for name, *_ in rows] == list(VERDICTS["hypotheses"])
    for name, mean, p, adjusted, label in rows:
        values, verdict = by_seed(name), VERDICTS["hypotheses"][name]["verdict"]
        assert verdict["mean"] == pytest.approx(values.mean(), rel=1e-9, abs=1e-12)
        assert (mean, p) == (with_interval(values), f"{signflip_p(values):.4f}"), name
        assert verdict["p"] == pytest.approx(signflip_p(values))
        assert adjusted == f"{verdict['p_adjusted']:.4f}"
        assert label.split(",")[0].strip("*") == verdict["label"]


def test_claims() -> None:
    rows = table_of("claim")
    assert [name for name, *_ in rows] == list(VERDICTS["claims"])
    for name, label, *_ in rows:
        assert label.strip("*") == VERDICTS["claims"][name]["verdict"]["label"], name


def test_where_the_mean_of_a_contrast_crosses_0_and_may() -> None:
    rows = table_of("crossing")
    assert [name for name, *_ in rows] == [one for one in VERDICTS["claims"] if "turns" in one]
    places = np.linspace(4, 12, 8001)
    for name, at, within in rows:
        of_rungs = [by_seed(f"{name}:{rung}") for rung in RUNGS[:4]]
        values = np.array(
            [np.interp(places, (4, 6, 8, 12), seed) for seed in zip(*of_rungs, strict=True)]
        )
        mean = values.mean(0)
        found = places[1:][np.diff(np.sign(mean)) != 0]
        shown_at = [] if at == "–" else [float(one) for one in at.split(", ")]
        np.testing.assert_allclose(shown_at, found, atol=0.006)
        half = stats.t.ppf(0.975, SEEDS - 1) * values.std(0, ddof=1) / np.sqrt(SEEDS)
        inside = np.flatnonzero(np.abs(mean) <= half)
        parts = np.split(places[inside], np.flatnonzero(np.diff(inside) > 1) + 1)
        ends = [(part[0], part[-1]) for part in parts if len(part)]
        shown_within = [] if within == "–" else [one.split(" to ") for one in within.split(", ")]
        np.testing.assert_allclose(
            np.array(shown_within, dtype=float).ravel(), np.ravel(ends), atol=0.006
        )


def test_no_number_of_the_text_stands_alone() -> None:
    """Outside the tables above numbers are theirs, stated, or the real network's."""
    checked = ("rung", "end point", "contrast", "hypothesis", "crossing")
    rows = [" ".join(row) for first in checked for row in table_of(first)]
    known = set(NUMBER.findall(" ".join(rows)))
    known |= {number.lstrip("+−") for number in known}
    elsewhere = set(NUMBER.findall((DOCS / "real_network.md").read_text()))
    elsewhere |= {f"+{number}" for number in elsewhere}
    text = PAGE
    for first in checked:
        for row in table_of(first):
            (line,) = (one for one in text.splitlines() if cells_of(one) == row)
            text = text.replace(line, "")
    assert NUMBER.findall(text)
    assert not set(NUMBER.findall(text)) - known - elsewhere - STATED
