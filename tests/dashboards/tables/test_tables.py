"""A run root is read as it is: values, names, and what is missing."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from dashboards.names import split_metric
from dashboards.tables.chain import read_entry
from dashboards.tables.derived import judged, write_results, write_verdicts
from dashboards.tables.long import COLUMNS, long_table
from dashboards.tables.reading import read_study, study_runs
from tests.dashboards.conftest import Made, MakeStudy
from tests.registered import restated
from trainers.errors import InputError
from trainers.system.store import open_store

ENDINGS = {
    ("baseline", 3): "missing",
    ("cls_position_none", 4): "failed",
    ("cls_position_none", 5): "running",
    ("loss_on_patches", 1): "collapsed",
    ("loss_on_patches", 2): "diverged",
}


def everything(made: Made) -> pd.DataFrame:
    return long_table(read_entry(*made), made.store)


def results(made: Made) -> Path:
    return made.root / write_results(read_study(*made))


def restate(made: Made, change: Callable[[dict[str, Any]], object]) -> None:
    restated(made.registration, change)


def test_table_has_exactly_the_nine_columns(make_study: MakeStudy) -> None:
    table = everything(make_study())
    assert tuple(table.columns) == COLUMNS
    kinds = {name: str(kind) for name, kind in table.dtypes.items()}
    assert kinds["layer"] == kinds["head"] == "Int64"
    assert kinds["seed"] == kinds["step"] == "int64"
    assert kinds["value"] == "float64"


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("globality/cls/gyration@2.1", ("globality/cls/gyration", 2, 1, "cls")),
        ("globality/patch/gyration@11", ("globality/patch/gyration", 11, None, "patch")),
        ("globality/patch/gyration", ("globality/patch/gyration", None, None, "patch")),
        ("globality/contrast/gyration", ("globality/contrast/gyration", None, None, None)),
        ("knn/cls_top1", ("knn/cls_top1", None, None, None)),
        ("loss/cls", ("loss/cls", None, None, None)),
    ],
)
def test_name_of_a_detail_is_split(key: str, parts: tuple[object, ...]) -> None:
    assert split_metric(key) == parts


def test_name_with_a_bad_detail_is_refused() -> None:
    with pytest.raises(InputError, match=r"name@layer\.head"):
        split_metric("globality/cls/gyration@last")


def test_details_keep_their_values(make_study: MakeStudy) -> None:
    made = make_study()
    table = everything(made)
    row = table[
        (table["arm"] == "baseline")
        & (table["seed"] == 2)
        & (table["step"] == 600)
        & (table["metric"] == "globality/cls/gyration")
        & (table["layer"] == 2)
        & (table["head"] == 1)
    ]
    lines = made.records("baseline", 2).read_text().splitlines()
    expected = json.loads(lines[-1])["metrics"]["globality/cls/gyration@2.1"]
    assert row["value"].tolist() == [expected]
    assert row["token"].tolist() == ["cls"]


def test_absent_details_are_empty(make_study: MakeStudy) -> None:
    table = everything(make_study())
    rows = table[table["metric"] == "knn/cls_top1"]
    assert not rows.empty
    assert rows[["layer", "head", "token"]].isna().all(axis=None)


def test_rows_are_in_order_of_arm_seed_step_and_name(make_study: MakeStudy) -> None:
    made = make_study()
    table = everything(made)
    table = table.assign(arm=table["arm"].map(read_study(*made).arms.index))
    for name in ("layer", "head"):
        table[name] = table[name].fillna(-1)
    keys = ["arm", "seed", "step", "metric", "layer", "head"]
    pd.testing.assert_frame_equal(
        table.sort_values(keys, kind="stable").reset_index(drop=True), table
    )


def test_results_do_not_depend_on_when_they_are_written(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    made = make_study(root=tmp_path / "one")
    first = results(made).read_bytes()
    second = results(made).read_bytes()
    other = make_study(root=tmp_path / "two", reverse=True)
    assert first == second
    assert results(other).read_bytes() == first
    assert not list(made.folder.glob(".*"))


def test_results_come_back_without_pandas_metadata(make_study: MakeStudy) -> None:
    made = make_study(ENDINGS)
    every, table = everything(made), pq.read_table(results(made))
    of_machine = every["metric"].str.startswith(("time/", "memory/"))
    assert of_machine.any()
    every = every[~of_machine]
    assert tuple(table.column_names) == COLUMNS
    assert b"pandas" not in (table.schema.metadata or {})
    assert table["value"].to_pylist() == every["value"].tolist()
    layers = [None if layer is pd.NA else layer for layer in every["layer"]]
    assert table["layer"].to_pylist() == layers
    assert set(table["token"].to_pylist()) == {None, "cls", "patch"}


def test_a_value_that_is_no_number_stays_one(make_study: MakeStudy) -> None:
    made = make_study()
    text = made.records("baseline", 0).read_text()
    made.record_anew("baseline", 0, text + '{"step": 600, "metrics": {"loss/odd": NaN}}\n')
    table = pq.read_table(results(made)).to_pydict()
    [value] = [
        value
        for metric, value in zip(table["metric"], table["value"], strict=True)
        if metric == "loss/odd"
    ]
    assert math.isnan(value)


def test_runs_say_how_they_ended(make_study: MakeStudy) -> None:
    made = make_study(ENDINGS)
    runs = study_runs(read_entry(*made), made.store)
    assert len(runs) == 18
    assert {place: runs[place].status for place in ENDINGS} == {
        ("baseline", 3): "missing",
        ("cls_position_none", 4): "failed",
        ("cls_position_none", 5): "missing",
        ("loss_on_patches", 1): "collapsed",
        ("loss_on_patches", 2): "diverged",
    }
    assert runs["baseline", 3].reason == "not started"
    assert runs["cls_position_none", 4].reason == "worker lost: <out of memory>"
    assert runs["cls_position_none", 5].reason == "not finished, last record at step 240"
    assert {run.status for place, run in runs.items() if place not in ENDINGS} == {"finished"}


def test_runs_have_values_of_step_0_and_the_last_step(make_study: MakeStudy) -> None:
    made = make_study(ENDINGS)
    run = study_runs(read_entry(*made), made.store)["baseline", 0]
    table = everything(made)
    mine = table[(table["arm"] == "baseline") & (table["seed"] == 0)]
    top = mine[mine["metric"] == "knn/cls_top1"].set_index("step")["value"]
    assert run.start["knn/cls_top1"] == top[0]
    assert run.end["knn/cls_top1"] == top[600]
    assert "globality/cls/gyration@2.1" in run.end


def test_a_run_that_collapsed_and_was_ended_is_said_to_be_so_with_its_step(
    make_study: MakeStudy,
) -> None:
    study = read_study(*make_study({("cls_position_none", 4): "stopped"}))
    run = study.runs["cls_position_none", 4]
    assert run.status == "collapsed"
    assert run.reason == "at step 240: outputs are the same for every image"
    assert run.start
    assert not run.end
    said = judged(study)["hypotheses"]["cls_needs_no_position"]["verdict"]
    assert said["label"] == "failed"
    collapsed = "collapsed at step 240: outputs are the same for every image"
    assert "cls_position_none: collapsed (at step 240: " in said["reason"]
    assert f"knn/cls_top1 minus step 0, seed 4 ({collapsed})" in said["reason"]


def test_a_run_that_stopped_early_has_no_last_values(make_study: MakeStudy) -> None:
    made = make_study(ENDINGS)
    runs = study_runs(read_entry(*made), made.store)
    assert not runs["loss_on_patches", 2].end
    assert runs["loss_on_patches", 1].end


def test_a_step_recorded_again_counts_once(make_study: MakeStudy) -> None:
    made = make_study()
    before = everything(made)
    for arm, seed in read_study(*made).runs:
        lines = made.records(arm, seed).read_text().splitlines(keepends=True)
        made.record_anew(arm, seed, "".join(lines[:10] + lines[5:]))
    pd.testing.assert_frame_equal(everything(made), before)


def test_arms_that_share_a_trial_share_its_values(make_study: MakeStudy) -> None:
    made = make_study()

    def share(stated: dict[str, Any]) -> None:
        keys = {t["seed"]: t["key"] for t in stated["trials"] if t["arm"] == "baseline"}
        for trial in stated["trials"]:
            if trial["arm"] == "cls_position_none":
                trial["key"] = keys[trial["seed"]]

    restate(made, share)
    study = read_study(*made)
    assert study.runs["baseline", 1] == study.runs["cls_position_none", 1]
    counts = everything(made)["arm"].value_counts()
    assert counts["baseline"] == counts["cls_position_none"]


@pytest.mark.slow
def test_verdicts_are_written_as_judged(make_study: MakeStudy) -> None:
    made = make_study()
    study = read_study(*made)
    written = json.loads((made.root / write_verdicts(study, judged(study))).read_text())
    assert written == judged(read_study(*made))
    assert written["study"] == "why_cls_is_global"
    assert list(written["hypotheses"]) == list(read_entry(*made).resolved.hypotheses)
    verdict = written["hypotheses"]["cls_needs_no_position"]["verdict"]
    assert verdict["label"] == "supported"
    assert verdict["n"] == 6


@pytest.mark.slow
def test_gates_agree_with_the_verdicts(make_study: MakeStudy) -> None:
    made = make_study()
    gate = judged(read_study(*made))["gates"]["learned"]["arms"]["baseline"]
    assert gate["passed"]
    assert gate["mean"] == pytest.approx(0.39, abs=0.02)
    restate(made, lambda stated: stated["resolved"]["gates"]["learned"].update(at_least=0.9))
    found = judged(read_study(*made))
    assert not found["gates"]["learned"]["arms"]["baseline"]["passed"]
    assert found["hypotheses"]["cls_needs_no_position"]["verdict"]["label"] == "failed"


def test_a_folder_without_a_lock_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no study: it has no"):
        read_study(open_store(tmp_path), "nobody")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stated: stated.pop("trials"), "trials: field required"),
        (lambda stated: stated["resolved"].pop("seeds"), "resolved.seeds: field required"),
        (lambda stated: stated["trials"].pop(), "no trial for arm 'loss_on_patches', seed 5"),
        (lambda stated: stated["trials"].clear(), "seed 2; and 15 more"),
        (lambda stated: stated["trials"][0].update(key="../../other"), "not a trial key"),
        (lambda stated: stated["trials"][0].update(key=""), "not a trial key"),
        (lambda stated: stated["trials"][0].update(seed="0"), "trials.0.seed"),
        (lambda stated: stated["resolved"].update(seeds="012"), "resolved.seeds"),
        (
            lambda stated: stated["resolved"].update(
                claims={"c": {"text": "t", "hypotheses": ["h"]}}
            ),
            "claim c names hypothesis 'h', which is not there",
        ),
        (lambda stated: stated["resolved"]["gates"]["learned"].update(arms=["gone"]), "arm 'gone'"),
        (
            lambda stated: stated["resolved"]["hypotheses"]["cls_needs_no_position"].pop("metric"),
            "metric",
        ),
    ],
)
def test_a_corrupt_registration_is_refused_in_one_line(
    make_study: MakeStudy, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    made = make_study()
    restate(made, change)
    with pytest.raises(InputError, match="is damaged") as caught:
        read_study(*made)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_registration_is_named(make_study: MakeStudy, text: str) -> None:
    made = make_study()
    path = made.registration
    path.write_text(text)
    with pytest.raises(InputError, match="is damaged") as caught:
        read_study(*made)
    assert str(path) in str(caught.value)
