"""A measurement is written whole or not at all, and everything in it is there."""

import json
import re

import pyarrow.parquet as pq
import pytest
import torch

from dashboards.figures.blocks import Series
from dashboards.figures.maps import MASS, _holding
from dashboards.measurement import report as measurement
from dashboards.measurement.report import (
    CAPTIONS,
    check_folder,
    long_table,
    write_measurement,
)
from dashboards.measurement.table import (
    REPLACED,
    by_head,
    headline,
    honest_notes,
    number,
    of_blocks,
    replaced_table,
)
from tests.dashboards.measurement.measured import FACTS, small_measurement
from trainers.errors import InputError
from trainers.globality.measurement import bias_of_positional_bias


@pytest.fixture(scope="module", params=["cls and registers", "neither"])
def measured(request):
    """A model, its plan and what was measured; with [CLS] and registers, or with neither."""
    torch.set_num_threads(1)
    return small_measurement(both=request.param != "neither")


@pytest.fixture(scope="module")
def written(measured, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "deep" / "measured"
    write_measurement(folder, *measured, facts=FACTS)
    return folder


def test_what_is_left_with_tokens_replaced_is_a_table(measured, written):
    model, _, found = measured
    rows, page = replaced_table(found.metrics), (written / "report.html").read_text()
    if not model.has_cls:
        assert rows == []
        assert "Tokens replaced" not in page
        return
    assert [row.title for row in rows] == [
        "[CLS] by the mean over other images",
        "[CLS] by another image's",
        "registers by the mean over other images",
        "registers by another image's",
    ]
    assert rows[2].kept == {
        "[CLS]": found.metrics["replaced/register/cls_kept_mean"],
        "patches": found.metrics["replaced/register/patch_kept_mean"],
    }
    assert rows[1].found["patches"] == found.metrics["replaced/cls/patch_found_other"]
    assert page.count("Tokens replaced") == 2
    assert REPLACED in page


@pytest.mark.slow
def test_everything_is_written(written):
    assert sorted(path.name for path in written.iterdir()) == [
        "figures",
        "maps.safetensors",
        "metrics.parquet",
        "report.html",
        "summary.json",
    ]
    figures = {path.stem: path.read_bytes() for path in (written / "figures").iterdir()}
    assert figures.keys() == CAPTIONS.keys()
    assert all(content.startswith(b"\x89PNG") for content in figures.values())
    assert [path.name for path in written.parent.iterdir()] == ["measured"]


def test_the_table_is_long_and_named_as_results_are(written, measured):
    rows = pq.read_table(written / "metrics.parquet").to_pylist()
    assert list(rows[0]) == ["model", "metric", "layer", "head", "token", "value"]
    metrics = measured[2].metrics
    assert len(rows) == len(metrics)
    assert {row["model"] for row in rows} == {"<small>"}
    for row in rows:
        place = "" if row["layer"] is None else f"@{row['layer']}"
        place += "" if row["head"] is None else f".{row['head']}"
        assert metrics[row["metric"] + place] == row["value"]
    tokens = {row["token"] for row in rows if row["metric"].startswith("rollout/patch/")}
    assert tokens == {"patch"}
    table = long_table("<small>", dict(reversed(metrics.items())))
    assert table.equals(long_table("<small>", metrics))


@pytest.mark.slow
def test_the_report_is_one_page_with_all_figures_that_needs_no_network(written):
    page = (written / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(CAPTIONS)
    assert not re.search(r"https?://", page)
    assert "&lt;small&gt;" in page
    assert "<small>" not in page
    assert "RANDOM WEIGHTS" in page


def test_the_summary_has_facts_notes_and_metrics(written, measured):
    summary = json.loads((written / "summary.json").read_text())
    assert summary["model"] == {"name": "<small>"}
    assert "RANDOM WEIGHTS" in summary["notes"][0]
    name = "globality/patch/gyration"
    assert summary["metrics"][name] == measured[2].metrics[name]


@pytest.mark.slow
def test_the_same_measurement_gives_the_same_bytes(written, measured, tmp_path):
    write_measurement(tmp_path / "again", *measured, facts=FACTS)
    for path in sorted(written.rglob("*")):
        if path.is_file():
            again = tmp_path / "again" / path.relative_to(written)
            assert again.read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
@pytest.mark.parametrize("after", range(1, 7))
def test_an_interruption_leaves_nothing(measured, tmp_path, after):
    calls = 0

    def check():
        nonlocal calls
        calls += 1
        if calls == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_measurement(tmp_path / "out", *measured, facts=FACTS, check=check)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_left_alone(measured, tmp_path):
    (tmp_path / "out").mkdir()
    check_folder(tmp_path / "out")
    (tmp_path / "out" / "mine").write_text("x")
    for folder, message in (
        (tmp_path / "out", "is not empty"),
        (tmp_path / "out" / "mine", "there is a file"),
        (tmp_path / "out" / "mine" / "below", "is no folder"),
    ):
        with pytest.raises(InputError, match=message):
            write_measurement(folder, *measured, facts=FACTS)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


@pytest.mark.slow
def test_a_failure_to_write_is_one_line_and_leaves_nothing(measured, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(measurement.pq, "write_table", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_measurement(tmp_path / "out", *measured, facts=FACTS)
    assert list(tmp_path.iterdir()) == []


def test_the_headline_has_every_kind_and_the_difference(measured):
    model, _, found = measured
    rows = headline(found.metrics)
    kinds = {row.kind.split()[0] for row in rows}
    assert {"attention", "rollout", "influence", "gradient"} <= kinds
    first = next(row for row in rows if row.measure == "gyration")
    assert first.primary["patch"] == found.metrics["globality/patch/gyration"]
    if model.has_cls:
        difference = first.primary["cls"] - first.primary["patch"]
        assert first.primary["difference"] == pytest.approx(difference)
    else:
        assert first.primary["cls"] is None


def test_every_head_that_is_drawn_has_its_numbers(measured):
    model, _, found = measured
    rows = by_head(Series(found.metrics))
    tokens = 1 + model.has_cls + bool(model.registers)
    assert len(rows) == tokens * model.depth * 2
    token, block, head, values = rows[-1]
    assert (token, block, head) == ("patches", 2, 2)
    assert values[:2] == [
        found.metrics[f"globality/patch/{m}@2.2"] for m in ("gyration", "entropy")
    ]


def test_notes_say_what_limits_the_numbers(measured):
    model, plan, found = measured
    notes = " ".join(honest_notes(model, plan, found.metrics))
    for part in ("RANDOM WEIGHTS", "biased on few images: of 10", "2,000 or more"):
        assert part in notes


def test_the_bias_is_that_of_the_entropy_of_few_draws():
    # Monte Carlo: entropy of 200 draws from 16, on average short of ln 16 by (16 - 1) / (2 · 200).
    draws = torch.randint(16, (4000, 200), generator=torch.Generator().manual_seed(0))
    shares = torch.nn.functional.one_hot(draws, 16).float().mean(1)
    found = 1 - torch.special.entr(shares).sum(-1).mean() / torch.tensor(16.0).log()
    assert bias_of_positional_bias(16, 200) == pytest.approx(float(found), rel=0.05)


def test_the_contour_holds_its_mass_in_the_fewest_patches():
    values = torch.tensor([[0.1, 0.4], [0.3, 0.2]])
    assert MASS == 0.6
    assert _holding(values, MASS).tolist() == [[False, True], [True, False]]
    assert _holding(values, 0.75).tolist() == [[False, True], [True, True]]


def test_numbers_have_no_negative_zero():
    assert [number(v) for v in (None, -0.0001, -0.25, 1.0)] == ["–", "0.000", "−0.250", "1.000"]


def test_a_measure_of_the_final_block_alone_has_its_line():
    """Before the first block there is no cosine: of two blocks the final one has the only one."""
    lines = of_blocks({"geometry/cls/patch_cosine/final_block": 0.25, "sinks/head/share": 0.5})
    assert [line[:3] for line in lines] == [
        ("heads with a sink", 0.5, None), ("cosine before norm", None, 0.25),
    ]  # fmt: skip
