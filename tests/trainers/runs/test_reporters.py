"""A file of records: what was written comes back, and what is damaged is named."""

import math

import pytest

from trainers.errors import InputError
from trainers.runs.reporters import JsonLines, read_records

RECORDS = [(0, {"a": 1.5}), (10, {"a": 2.0, "b": -1.0}), (20, {"a": 3.0})]


@pytest.fixture
def written(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl", keep_up_to=-1)
    for step, metrics in RECORDS:
        lines.report(step, metrics)
    return lines.path


def test_records_come_back_as_they_were_written(written, tmp_path):
    assert read_records(written) == RECORDS
    assert read_records(tmp_path / "nowhere.jsonl") == []


@pytest.mark.parametrize("cut", [1, 2, 9, 20])
def test_a_line_that_a_kill_cut_off_is_left_out_and_written_again(written, cut):
    written.write_bytes(written.read_bytes()[:-cut])
    assert read_records(written) == RECORDS[:-1]
    again = JsonLines(written, keep_up_to=10)
    again.report(*RECORDS[-1])
    assert read_records(written) == RECORDS


@pytest.mark.parametrize(
    "bad", [b"", b"no", b"\xff\xfe", b"[]", b'{"step": 5}', b'{"step": 5, "metrics": {"a": "x"}}']
)
def test_a_bad_line_inside_is_named_by_its_number(written, bad):
    first, *others = written.read_bytes().splitlines(keepends=True)
    written.write_bytes(first + bad + b"\n" + b"".join(others))
    with pytest.raises(InputError, match="line 2 is not a metrics record") as caught:
        read_records(written)
    assert str(written) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError):
        JsonLines(written, keep_up_to=10)


def test_a_run_that_starts_anew_needs_nothing_of_a_damaged_file(written):
    written.write_bytes(b"no\n" + written.read_bytes())
    JsonLines(written, keep_up_to=-1).report(*RECORDS[0])
    assert read_records(written) == RECORDS[:1]


def test_a_run_that_goes_on_and_fails_at_once_keeps_its_records(written):
    written.write_bytes(written.read_bytes() + b'{"step": 21, "metrics": {"a": null}}\n')
    before = written.read_bytes()
    with pytest.raises(ValueError, match="not a number to report"):
        JsonLines(written, keep_up_to=21)
    assert written.read_bytes() == before
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_null_is_no_number(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "metrics": {"a": null}}\n')
    [(step, metrics)] = read_records(path)
    assert step == 0
    assert math.isnan(metrics["a"])
