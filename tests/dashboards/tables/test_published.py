"""The published numbers of docs/ come out of the published values again, to the last digit."""

import json
import math
import re
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dashboards.tables.chain import read_entry
from dashboards.tables.derived import judged
from tests.dashboards.published import DOCS, published, published_store
from trainers.system.store import Store

BY_RULES = ("reason", "label", "tags", "seeds_needed")
"""What newer rules say otherwise of the same numbers: sensitivity and controls came later."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A run root whose studies are those of docs/."""
    return published_store(tmp_path)


def close(found: object, expected: object) -> bool:
    """Equal but for rounding in the last digits, which differs between machines; BY_RULES is free.

    Numbers that were not published are not compared.
    """
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        if expected.get("p_equivalence") is not None:
            # It was published without its floor, what n signs can show at the least.
            expected = expected | {"p_equivalence": max(expected["p_equivalence"], 0.5**8)}
        return found.keys() >= expected.keys() and all(
            key in BY_RULES or close(found[key], expected[key]) for key in expected
        )
    if isinstance(expected, list):
        assert isinstance(found, list)
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, float):
        assert isinstance(found, float)
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12)
    return expected is None or found == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "hypotheses"),
    [("why_cls_is_global-small", 25), ("why_cls_is_global-photographs", 29), ("ladder", 32)],
)
def test_published_numbers_come_out_again(store: Store, name: str, hypotheses: int) -> None:
    expected = json.loads((DOCS / name / "verdicts.json").read_text())
    found = judged(published(store, name))
    assert len(expected["hypotheses"]) == hypotheses
    for group in ("hypotheses", "claims", "gates"):
        assert list(found[group]) == list(expected[group])
        for one, published_entry in expected[group].items():
            # What single images say lies with the trials, which are not published.
            entry = {key: value for key, value in published_entry.items() if key != "images"}
            assert close({field: found[group][one][field] for field in entry}, entry), one


@pytest.mark.parametrize("name", ["why_cls_is_global-small", "why_cls_is_global-photographs"])
def test_a_published_lock_is_read_and_nothing_of_it_is_lost(store: Store, name: str) -> None:
    written = json.loads((DOCS / name / "study.lock.json").read_text())
    assert close(read_entry(store, name).model_dump(mode="json"), written)


def test_the_tiny_models_beside_a_real_network_are_those_that_were_published() -> None:
    table = pq.read_table(DOCS / "why_cls_is_global-photographs" / "results.parquet")
    last = pc.and_(pc.equal(table["arm"], "baseline"), pc.is_null(table["layer"]))
    last = pc.and_(last, pc.equal(table["step"], pc.max(table["step"])))
    table = table.filter(last)
    rows = re.findall(
        r"^\|[^|]+\| `(.+?)` \|.*\| \**([−0-9.]+)\** \|$",
        (DOCS / "real_network.md").read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 14
    for metric, shown in rows:
        values = table.filter(pc.equal(table["metric"], metric))["value"]
        assert len(values) == 8, metric
        assert f"{pc.mean(values).as_py():.3f}".replace("-", "−") == shown, metric
