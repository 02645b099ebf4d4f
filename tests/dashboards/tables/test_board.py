"""How far each trial is: every way in which an attempt can be left, read from the run root."""

import json
import os
import subprocess
import sys

import pytest

from ablations.registration import LOCK, registration_key, study_folder
from dashboards.tables.board import board, find_trial, progress_of, studies_of
from dashboards.tables.chain import read_entry
from tests.registered import register
from trainers.errors import InputError
from trainers.runs.attempt import claimed
from trainers.runs.lease import Holder, Lease
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import open_store

STEPS = 40


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "root", make=True)


def begun(store, key, driver="study"):
    trial = StoredTrial(store, key)
    attempt = claimed(trial, steps=STEPS, driver=driver, over=(), waits=False)
    assert attempt is not None
    return trial, attempt


def finished(store, key, driver="study"):
    trial, attempt = begun(store, key, driver)
    attempt.records.report(STEPS, {"knn/cls_top1": 0.5})
    attempt.commit({"status": "finished", "reason": "", "step": STEPS, "steps": STEPS})
    attempt.end("finished")
    return trial


def test_a_study_of_the_old_layout_is_said_to_be_one(store):
    store.put(f"s/{LOCK}", b"{}")
    with pytest.raises(InputError, match=r"root/s was made by dinolab 0\.1"):
        read_entry(store, "s")


@pytest.mark.parametrize("name", ["", "..", "../s", "/s", ".s", "s/", "s//t"])
def test_what_cannot_be_the_name_of_a_study_is_one_line(store, name):
    with pytest.raises(InputError, match=r"is no study: it has no registration"):
        read_entry(store, name)


def lock_of(store, name, places):
    """State a study whose trials are {(arm, seed): key}."""
    arms = {arm: {} for arm, _ in places}
    content = {
        "study": name,
        "hypotheses_sha256": "0",
        "resolved": {
            "seeds": sorted({seed for _, seed in places}), "arms": arms, "hypotheses": {},
            "gates": {},
        },
        "arms": {arm: {} for arm in arms},
        "trials": [{"key": key, "arm": a, "seed": s} for (a, s), key in places.items()],
        "config": {},
    }  # fmt: skip
    register(store, content)


def ended_process():
    """A process that has ended, as a lease names it."""
    code = "import dataclasses, json; from trainers.runs.lease import Holder; "
    code += "print(json.dumps(dataclasses.asdict(Holder.this())))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    return Holder(**json.loads(done.stdout))


class TestATrialIs:
    def test_waiting_before_its_first_attempt(self, store):
        assert progress_of(StoredTrial(store, "a1")).state == "waiting"

    def test_running_with_its_step_while_its_holder_lives(self, store):
        trial, attempt = begun(store, "a1")
        attempt.held.change(step=10, rate=2.5)
        found = progress_of(trial)
        attempt.end("interrupted")
        assert (found.state, found.step, found.steps, found.rate) == ("running", 10, STEPS, 2.5)
        assert f"process {os.getpid()}" in found.where

    def test_finished_as_its_result_says_whatever_the_lease_says(self, store):
        trial = finished(store, "a1")
        found = progress_of(trial)
        assert (found.state, found.step, found.attempts) == ("finished", STEPS, 1)

    def test_failed_with_the_reason(self, store):
        trial, attempt = begun(store, "a1")
        attempt.fail("ours", ValueError("no such luck"))
        attempt.end("failed")
        assert progress_of(trial).state == "failed"
        assert progress_of(trial).reason == "ValueError: no such luck"

    def test_interrupted_at_a_step(self, store):
        trial, attempt = begun(store, "a1")
        attempt.held.at(7)
        attempt.end("interrupted")
        found = progress_of(trial)
        assert found.state == "interrupted"
        assert "at step 7" in found.reason

    def test_silent_once_its_process_has_ended(self, store):
        trial = StoredTrial(store, "a1")
        lease = Lease(holder=ended_process(), driver="d", from_attempt=0, from_step=-1, steps=STEPS)
        store.put(f"{trial.attempt_folder(1)}/lease.json", lease.content())
        assert progress_of(trial).state == "silent"

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"status": "finished"}'])
    def test_damaged_when_its_result_cannot_be_read(self, store, content):
        trial = finished(store, "a1")
        store.put(trial.result_key, content)
        found = progress_of(trial)
        assert found.state == "damaged"
        assert f"{trial.shown}/result.json" in found.reason


class TestABoard:
    def test_has_every_arm_and_seed_and_arms_share_a_trial(self, store):
        lock_of(store, "s", {("a", 0): "k0", ("b", 0): "k0", ("a", 1): "k1", ("b", 1): "k2"})
        finished(store, "k0")
        found = board(read_entry(store, "s"), store)
        states = {place: one.state for place, one in found.items()}
        assert states == {
            ("a", 0): "finished", ("b", 0): "finished", ("a", 1): "waiting", ("b", 1): "waiting",
        }  # fmt: skip

    def test_a_study_whose_lock_is_damaged_is_named_beside_the_others(self, store):
        lock_of(store, "s", {("a", 0): "k0"})
        store.put(f"{study_folder('t')}/{LOCK}", b"{")
        chains, (problem,) = studies_of(store)
        assert [[entry.study for entry in chain] for chain in chains] == [["s"]]
        assert f"{study_folder('t')}/{LOCK} is damaged" in problem


def test_a_study_whose_folder_has_another_name_is_one_line(store):
    lock_of(store, "s", {("a", 0): "k0"})
    content = store.get(registration_key("s", 1))
    store.put(registration_key("renamed", 1), content)
    with pytest.raises(InputError, match="states the study s: give its folder that name"):
        read_entry(store, "renamed")


class TestATrialIsFound:
    def test_by_its_key_its_beginning_and_its_place(self, store):
        lock_of(store, "s", {("a", 0): "abc", ("a", 1): "abd"})
        for key in ("abc", "abd"):
            finished(store, key)
        assert [find_trial(store, g).key for g in ("abc", "abd", "s/a/1")] == ["abc", "abd", "abd"]

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("ab", "several trials"),
            ("x", "no trial"),
            ("", "several trials"),
            ("s/a/7", "seeds 0, 1"),
            ("s/c/0", "arms a"),
            ("t/a/0", "is no study"),
        ],
    )
    def test_or_one_line_says_what_there_is(self, store, given, said):
        lock_of(store, "s", {("a", 0): "abc", ("a", 1): "abd"})
        for key in ("abc", "abd"):
            finished(store, key)
        with pytest.raises(InputError, match=said) as caught:
            find_trial(store, given)
        assert "\n" not in str(caught.value)
