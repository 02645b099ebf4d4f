"""Who is at an attempt: claimed by whoever is first, and over by no clock but the watcher's own."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from trainers.errors import ConfigError
from trainers.runs import attempt as attempts
from trainers.runs.attempt import claimed
from trainers.runs.lease import Held, Holder, Lease, Watch, expires_s
from trainers.runs.stored_trial import StoredTrial
from trainers.system import atomic
from trainers.system.store import open_store

ELSEWHERE = Holder(host="elsewhere", space="another boot", pid=1, started="1")


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def trial(tmp_path):
    return StoredTrial(open_store(tmp_path), "trial")


@pytest.fixture
def clock():
    return Clock()


def lease(**changes):
    plain = Lease(holder=ELSEWHERE, driver="", from_attempt=0, from_step=-1, steps=6)
    return dataclasses.replace(plain, **changes)


def held(trial, number, one):
    """Write the lease of an attempt, as its holder does."""
    trial.store.put(f"{trial.attempt_folder(number)}/lease.json", one.content())


def claim(trial, **changes):
    given = {"steps": 6, "driver": "", "over": (), "waits": False, **changes}
    found = claimed(trial, **given)
    if found is not None:
        found.end("interrupted")
    return found


def test_a_lease_is_read_as_it_was_written():
    one = lease(beat=3, step=4, rate=1.5, outcome="failed")
    assert Lease.read(one.content()) == one


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b"{}", b"\xff", b'{"holder": {}}', b"3"]
)
def test_a_damaged_lease_is_nobodys(content):
    assert Lease.read(content) is None


@pytest.mark.parametrize("has_links", [True, False])
def test_of_several_that_claim_an_attempt_one_has_it(trial, monkeypatch, has_links):
    def no_link(*_paths):
        raise OSError(95, "Operation not supported")

    if not has_links:
        monkeypatch.setattr(atomic.os, "link", no_link)
    key, together, won = f"{trial.attempt_folder(1)}/lease.json", threading.Barrier(8), []

    def put(number):
        together.wait()
        if trial.store.put(key, lease(driver=str(number)).content(), if_absent=True):
            won.append(str(number))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [trial.lease(1).driver]


def test_who_comes_second_to_a_claim_leaves_the_trial_to_the_first(trial):
    first = claimed(trial, steps=6, driver="", over=(), waits=False)
    assert first.number == 1
    assert claim(trial) is None
    first.end("interrupted")
    assert claim(trial).number == 2
    assert trial.attempts() == [1, 2]


def test_a_process_that_the_system_hides_from_its_reader_is_not_gone(monkeypatch):
    ended = dataclasses.replace(Holder.this(), pid=2**22 - 1)
    assert ended.is_gone()

    def hidden(_pid, _signal):
        raise PermissionError

    monkeypatch.setattr("os.kill", hidden)
    assert not ended.is_gone()


def test_an_attempt_whose_process_is_gone_is_over_at_once(clock):
    script = (
        "import json; from dataclasses import asdict; from trainers.runs.lease import Holder;"
        "print(json.dumps(asdict(Holder.this())), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        holder = Holder(**json.loads(process.stdout.readline()))
        assert not Watch(clock).is_over("1", lease(holder=holder))
        process.kill()
    assert Watch(clock).is_over("1", lease(holder=holder))


def test_another_process_of_the_same_number_is_not_the_holder(clock):
    mine = Holder.this()
    assert mine.pid == os.getpid()
    assert not Watch(clock).is_over("1", lease(holder=mine))
    assert Watch(clock).is_over("1", lease(holder=dataclasses.replace(mine, started="1")))


def test_an_attempt_that_says_it_has_ended_is_over_at_once(clock):
    assert Watch(clock).is_over("1", lease(outcome="failed"))


@pytest.mark.parametrize("found", [lease(beat=7), None], ids=["quiet", "damaged"])
def test_an_attempt_that_does_not_change_is_over_when_the_watcher_has_waited(
    clock, monkeypatch, found
):
    monkeypatch.setenv("DINOLAB_LEASE_S", "30")
    watch = Watch(clock)
    assert not watch.is_over("1", found)
    clock.now = 29.9
    assert not watch.is_over("1", found)
    clock.now = 30.0
    assert watch.is_over("1", found)
    # Another watcher has waited for nothing yet, whatever its clock shows.
    assert not Watch(clock).is_over("1", found)


def test_an_attempt_that_beats_is_never_over(clock):
    watch = Watch(clock)
    for beat in range(100):
        clock.now = 50.0 * beat
        assert not watch.is_over("1", lease(beat=beat))


def test_a_lease_counts_its_beats_and_says_where_the_run_is(trial, monkeypatch):
    monkeypatch.setenv("DINOLAB_LEASE_S", "1")
    one = Held(trial.store, f"{trial.attempt_folder(1)}/lease.json", lease(), lambda: False)
    one.at(4)
    until = time.monotonic() + 20
    while (found := trial.lease(1)) is None or found.step < 4:
        assert time.monotonic() < until
    one.end("finished")
    assert trial.lease(1).beat > found.beat > 0
    assert trial.lease(1).outcome == "finished"


def test_no_clock_of_the_day_is_asked(trial, monkeypatch):
    def asked():
        raise AssertionError("asked for the time of day")

    monkeypatch.setattr(time, "time", asked)
    held(trial, 1, lease())
    assert claim(trial) is None
    assert claim(trial, over={1}).number == 2


def test_a_claim_waits_until_the_one_before_is_over(trial, monkeypatch):
    said, waited = [], []
    monkeypatch.setattr(attempts.time, "sleep", lambda _: (waited.append(1), held_ended()))

    def held_ended():
        if len(waited) == 3:
            held(trial, 1, lease(beat=4, outcome="failed"))

    held(trial, 1, lease())
    assert claim(trial, waits=True, say=said.append).number == 2
    assert len(waited) == 3
    assert said == ["another process (elsewhere 1) is at this run: waiting until it has ended"]


def test_a_folder_that_a_kill_left_before_the_claim_keeps_nobody_waiting(trial):
    (trial.store.local / trial.attempt_folder(1)).mkdir(parents=True)
    assert claim(trial).number == 1
    (trial.store.local / trial.attempt_folder(2)).mkdir()
    assert claim(trial).number == 2


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "inf", "1e9"])
def test_an_expiry_that_is_none_is_refused_in_one_line(monkeypatch, given):
    monkeypatch.setenv("DINOLAB_LEASE_S", given)
    with pytest.raises(ConfigError, match=f"DINOLAB_LEASE_S={given}: give seconds, from 1 to"):
        expires_s()


def test_a_run_that_goes_on_has_done_no_steps_in_no_time(trial):
    one = Held(trial.store, f"{trial.attempt_folder(1)}/lease.json", lease(), lambda: False)
    one.starts_at(5000)
    one._write("")
    assert (trial.lease(1).step, trial.lease(1).rate) == (5000, 0.0)
    one._moved = [(now - 10, step) for now, step in one._moved]
    one.at(5010)
    one.end("interrupted")
    assert trial.lease(1).step == 5010
    assert trial.lease(1).rate == pytest.approx(1.0, abs=0.1)
