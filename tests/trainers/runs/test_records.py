"""Records in segments: what was reported comes back, and what is damaged is named."""

import math

import pytest

from trainers.errors import InputError
from trainers.runs.records import Records, digest_of, is_segment, lines_up_to, parse
from trainers.system.store import open_store

RECORDS = [(0, {"a": 1.5}), (10, {"a": 2.0, "b": -1.0}), (20, {"a": 3.0})]


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path)


def reported(store, *, cut_after=(), before=b""):
    lines = Records(store, "attempt", before=before)
    for step, metrics in RECORDS:
        lines.report(step, metrics)
        if step in cut_after:
            lines.cut()
    return lines


def segments(store):
    return {name: store.get(f"attempt/{name}") for name in store.names("attempt")}


def test_records_come_back_as_they_were_reported(store):
    reported(store)
    (content,) = segments(store).values()
    assert parse(content, "") == RECORDS


def test_a_report_is_there_when_it_returns(store):
    lines = Records(store, "attempt")
    for count, (step, metrics) in enumerate(RECORDS, start=1):
        lines.report(step, metrics)
        assert parse(store.get("attempt/metrics-000000000.jsonl"), "") == RECORDS[:count]


def test_a_segment_is_named_by_its_first_step_and_joined_they_are_what_was_reported(store):
    reported(store)
    whole = segments(store)["metrics-000000000.jsonl"]
    store.delete("attempt/metrics-000000000.jsonl")
    digests = reported(store, cut_after=(0, 10)).cut()
    found = segments(store)
    assert list(found) == [f"metrics-{step:09d}.jsonl" for step in (0, 10, 20)]
    assert b"".join(found.values()) == whole
    assert digests == {name: digest_of(content) for name, content in found.items()}
    assert all(map(is_segment, found))


def test_a_segment_that_has_ended_is_never_written_again(store):
    put, seen = store.put, []

    def watched(key, content, **options):
        seen.append(key)
        return put(key, content, **options)

    store.put = watched
    lines = reported(store, cut_after=(0, 10))
    lines.cut()
    lines.cut()
    assert seen == [f"attempt/metrics-{step:09d}.jsonl" for step in (0, 10, 20)]


def test_a_segment_ends_at_64_kib(store):
    lines = Records(store, "attempt")
    metrics = {f"metric/{number}": 0.1 * number for number in range(100)}
    for step in range(100):
        lines.report(step, metrics)
    lines.cut()
    found = list(segments(store).values())
    assert len(found) > 2
    line = len(found[0].splitlines()[0]) + 10
    assert all(2**16 <= len(content) <= 2**16 + line for content in found[:-1])
    assert parse(b"".join(found), "") == [(step, metrics) for step in range(100)]


def test_an_attempt_that_goes_on_has_all_records_before_it(store):
    first = Records(store, "before")
    for record in RECORDS[:2]:
        first.report(*record)
    first.cut()
    before = store.get("before/metrics-000000000.jsonl")
    lines = Records(store, "attempt", before=before)
    lines.report(*RECORDS[2])
    found = segments(store)
    assert list(found) == ["metrics-000000000.jsonl", "metrics-000000020.jsonl"]
    assert found["metrics-000000000.jsonl"] == before
    assert parse(b"".join(found.values()), "") == RECORDS


def test_no_more_is_taken_of_a_segment_than_up_to_a_step(store):
    reported(store)
    (content,) = segments(store).values()
    assert parse(lines_up_to(content, 10, ""), "") == RECORDS[:2]
    assert lines_up_to(content, 20, "") == content


@pytest.mark.parametrize(
    "bad", [b"", b"no", b"\xff\xfe", b"[]", b'{"step": 5}', b'{"step": 5, "metrics": {"a": "x"}}']
)
def test_a_bad_line_is_named_by_its_number(store, bad):
    reported(store)
    (content,) = segments(store).values()
    first, *others = content.splitlines(keepends=True)
    with pytest.raises(InputError, match="line 2 is not a metrics record") as caught:
        parse(first + bad + b"\n" + b"".join(others), "root/metrics-0.jsonl")
    assert str(caught.value).startswith("root/metrics-0.jsonl is damaged")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [2, 9, 20])
def test_a_line_that_is_cut_off_is_no_record(store, cut):
    reported(store)
    (content,) = segments(store).values()
    with pytest.raises(InputError, match="line 3 is not a metrics record"):
        parse(content[:-cut], "")


def test_what_is_no_number_is_not_reported_and_leaves_the_records_as_they_are(store):
    lines = reported(store)
    before = segments(store)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not a number to report"):
            lines.report(30, {"a": value})
    assert segments(store) == before


def test_null_is_no_number():
    [(step, metrics)] = parse(b'{"step": 0, "metrics": {"a": null}}\n', "")
    assert step == 0
    assert math.isnan(metrics["a"])


def test_a_report_of_a_checkpoint_alone_is_no_record(store, tmp_path):
    Records(store, "attempt").report(4, {}, checkpoint=tmp_path)
    assert segments(store) == {}
