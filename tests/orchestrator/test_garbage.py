"""What of a run root nothing needs: never what a study names, a result rests on, or is at work."""

import time
from types import SimpleNamespace

import pytest

from orchestrator.garbage import delete, garbage
from tests.dashboards.tables.test_board import STEPS, begun, finished, lock_of
from trainers.errors import InputError
from trainers.system.store import open_store


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "root", make=True)


def places(store, *, single=False):
    return {one.what: one.why for one in garbage(store, single=single)}


def keys(store):
    return {entry.key for entry in store.list("trials")}


def test_what_a_study_names_stays_and_what_none_names_goes(store):
    lock_of(store, "s", {("a", 0): "named"})
    finished(store, "named")
    finished(store, "other")
    assert places(store) == {"trials/other": "no study names it"}
    for one in garbage(store, single=False):
        one.delete(store)
    assert {key.split("/")[1] for key in keys(store)} == {"named"}


def test_a_trial_that_a_study_comes_to_name_before_it_is_deleted_stays(store):
    finished(store, "adopted")
    finished(store, "other")
    found = garbage(store, single=False)
    lock_of(store, "s", {("a", 0): "adopted"})
    assert [one.what for one in delete(found, store)] == ["trials/other"]
    assert {key.split("/")[1] for key in keys(store)} == {"adopted"}


def test_a_run_of_its_own_goes_only_when_asked(store):
    finished(store, "mine", driver="")
    assert places(store) == {}
    assert places(store, single=True) == {"trials/mine": "no study names it"}


def test_what_is_being_trained_stays(store):
    _, attempt = begun(store, "other")
    assert places(store) == {}
    attempt.end("interrupted")
    assert places(store) == {"trials/other": "no study names it"}


def test_what_is_being_trained_stays_whatever_the_clocks_say(store, monkeypatch):
    monkeypatch.setenv("DINOLAB_LEASE_S", "1")
    ahead = SimpleNamespace(time=lambda: time.time() + 7200)
    monkeypatch.setattr("dashboards.tables.board.time", ahead)
    _, attempt = begun(store, "other")
    _, quiet = begun(store, "quiet")
    quiet.held._ended.set()  # as if its process were gone: it writes no more
    quiet.held._thread.join()
    assert places(store) == {"trials/quiet": "no study names it"}
    attempt.end("interrupted")


def test_nothing_is_left_of_what_goes_not_even_what_a_kill_left_half_written(store, monkeypatch):
    monkeypatch.setenv("DINOLAB_LEASE_S", "1")
    finished(store, "other")
    for name in (".config.json.x", "attempts/0001/.checkpoint-4/part", "attempts/0002/.lease.x"):
        path = store.local / "trials/other" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (store.local / "trials/empty/attempts/0001").mkdir(parents=True)
    for one in garbage(store, single=False):
        one.delete(store)
    assert store.names("trials") == []


def test_attempts_without_the_result_go_but_for_what_it_names_of_them(store):
    lock_of(store, "s", {("a", 0): "named"})
    trial, first = begun(store, "named")
    for step in (10, 20):
        first._keep_of_images(f"maps-{step}.safetensors", b"maps")
        first.records.report(step, {"loss/total": 1.0})
        first.begun(step)
        folder = store.local / first.prefix
        (folder / f"checkpoint-{step}.safetensors").write_bytes(b"state")
        first.keep(step, folder / f"checkpoint-{step}.safetensors", lambda _: True)
    first.end("interrupted")
    _, second = begun(store, "named")
    second.records.report(STEPS, {"loss/total": 0.5})
    state = trial.state(1, 10)
    second._kept, second._of_images = {"10": f"attempts/0001/{state.name}"}, dict(state.of_images)
    second.commit({"status": "finished", "reason": "", "step": STEPS, "steps": STEPS})
    second.end("finished")
    for one in garbage(store, single=False):
        one.delete(store)
    left = {key.removeprefix("trials/named/") for key in keys(store)}
    assert left == {
        "attempts/0001/checkpoint-10.safetensors",
        "attempts/0001/checkpoint-10.json",
        "attempts/0001/maps-10.safetensors",
        "attempts/0002/lease.json",
        "attempts/0002/metrics-000000040.jsonl",
        "result.json",
    }
    assert trial.records() == [(STEPS, {"loss/total": 0.5})]


def test_a_result_that_was_set_aside_goes(store):
    lock_of(store, "s", {("a", 0): "named"})
    trial = finished(store, "named")
    store.put(trial.result_key, b"{")
    trial.set_aside()
    assert places(store) == {"trials/named/damaged": "set aside as damaged"}


def test_nothing_goes_while_a_study_cannot_be_read(store):
    store.put("studies/s/registrations/0001.json", b"{")
    finished(store, "other")
    with pytest.raises(InputError, match=r"registrations/0001\.json is damaged"):
        garbage(store, single=False)


def test_a_run_of_its_own_that_goes_on_before_it_is_deleted_stays(store):
    _, first = begun(store, "mine", driver="")
    first.end("interrupted")
    finished(store, "other", driver="")
    found = garbage(store, single=True)
    assert {one.what for one in found} == {"trials/mine", "trials/other"}
    _, second = begun(store, "mine", driver="")
    before = keys(store)
    assert [one.what for one in delete(found, store)] == ["trials/other"]
    assert keys(store) == {key for key in before if key.startswith("trials/mine/")}
    second.end("interrupted")
