"""Values of a trial are kept as one parquet file, which is only trusted if it is right."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dashboards.study.files import write_files
from dashboards.tables.derived import judged, write_results
from dashboards.tables.reading import read_study
from dashboards.tables.values import VALUES, values_of
from tests.dashboards.conftest import Made, MakeStudy
from trainers.errors import StoreError


def kept(made: Made, arm: str = "baseline", seed: int = 0) -> Path:
    return made.root / made.trial(arm, seed).folder / VALUES


def results(made: Made) -> bytes:
    return (made.root / write_results(read_study(*made))).read_bytes()


def test_values_of_finished_trials_alone_are_kept(make_study: MakeStudy) -> None:
    made = make_study({("baseline", 1): "running", ("baseline", 2): "failed"})
    read_study(*made)
    there = {seed for seed in range(6) if kept(made, seed=seed).exists()}
    assert there == {0, 3, 4, 5}
    columns = ["step", "metric", "layer", "head", "token", "value"]
    assert pq.read_table(kept(made)).column_names == columns


def test_kept_values_give_the_results_that_records_give(make_study: MakeStudy) -> None:
    made = make_study()
    first = results(made)
    marked = kept(made).stat().st_mtime_ns
    assert results(made) == first
    assert kept(made).stat().st_mtime_ns == marked


@pytest.mark.parametrize("seed", range(8))
def test_a_changed_byte_of_kept_values_changes_nothing(make_study: MakeStudy, seed: int) -> None:
    made = make_study()
    first = results(made)
    content = bytearray(kept(made).read_bytes())
    for place in range(seed, len(content), 8 * 97):
        content[place] ^= 0x55
    kept(made).write_bytes(content)
    assert results(made) == first


@pytest.mark.parametrize("content", [b"", b"PAR1", b"[]"])
def test_kept_values_that_are_no_table_are_made_again(
    make_study: MakeStudy, content: bytes
) -> None:
    made = make_study()
    trial = made.trial("baseline", 0)
    table = values_of(trial, trial.finished())
    kept(made).write_bytes(content)
    assert values_of(trial, trial.finished()).equals(table)
    assert pq.read_table(kept(made)).num_rows == len(table)


def test_values_of_other_records_are_made_again(make_study: MakeStudy) -> None:
    made = make_study()
    results(made)
    text = made.records("baseline", 0).read_text()
    *_, last = text.splitlines()
    record = json.loads(last)
    record["metrics"]["knn/cls_top1"] = 0.125
    made.record_anew("baseline", 0, text + json.dumps(record) + "\n")
    assert read_study(*made).runs["baseline", 0].end["knn/cls_top1"] == 0.125


@pytest.mark.parametrize("before", [False, True], ids=["never read", "values are kept"])
@pytest.mark.parametrize("what", ["missing", "changed", "cut", "empty", "no result", "half result"])
def test_a_run_with_a_damaged_file_is_failed_and_names_it(
    make_study: MakeStudy, what: str, before: bool
) -> None:
    made = make_study()
    if before:
        read_study(*made)
    path = made.records("baseline", 3)
    result = made.root / made.trial("baseline", 3).result_key
    if "result" in what:
        content = result.read_bytes()
        path = result
        path.write_bytes(b"" if what == "no result" else content[: len(content) // 2])
    elif what == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(
            {"changed": content.replace(b"1", b"7", 1), "cut": content[:-9], "empty": b""}[what]
        )
    study, verdicts, _ = write_files(*made)
    run = study.runs["baseline", 3]
    assert run.status == "failed"
    assert str(path) in run.reason
    assert "\n" not in run.reason
    assert not run.end
    said = verdicts["hypotheses"]["cls_needs_no_position"]["verdict"]
    assert said["label"] == "failed"
    assert str(path) in said["reason"]
    table = pq.read_table(made.folder / "results.parquet").to_pandas()
    assert set(table[table["arm"] == "baseline"]["seed"]) == {0, 1, 2, 4, 5}
    others = [place for place in study.runs if place != ("baseline", 3)]
    assert {study.runs[place].status for place in others} == {"finished"}


def test_a_root_that_cannot_be_written_is_judged_all_the_same(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_study()
    expected = judged(read_study(*made))

    def refused(key: str, content: bytes, *, if_absent: bool = False) -> bool:
        raise StoreError(f"{key} cannot be written")

    for path in made.root.glob(f"trials/*/{VALUES}"):
        path.unlink()
    monkeypatch.setattr(made.store, "put", refused)
    found = judged(read_study(*made))
    assert found == expected
