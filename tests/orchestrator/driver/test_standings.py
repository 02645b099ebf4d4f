"""How the trials of a study stand for a driver: its own attempts, other drivers, the run root."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from orchestrator.driver.standings import Standings
from orchestrator.retry import Failure, Retry
from orchestrator.schedule import Launch, Stop, Wait
from trainers.errors import StoreError
from trainers.runs.attempt import claimed, record_failure
from trainers.runs.lease import Holder, Lease, expires_s
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import open_store

LOST = Failure(kind="infrastructure", message="the worker died", again=True)
FULL = Failure(kind="infrastructure", message="the run root is full", again=True, of_the_root=True)
TRIALS = [SimpleNamespace(key=f"{number:016x}") for number in range(3)]


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Driver:
    """A standings on a root, what it has said, and what others have finished."""

    def __init__(self, root, name):
        self.clock, self.said, self.others = Clock(), [], []
        self.store = open_store(root, make=True)
        self.standings = Standings(
            TRIALS, self.store, name, say=self.said.append, finished=self.others.append,
            clock=self.clock,
        )  # fmt: skip

    def decided(self, after_s=0.0):
        self.clock.now += after_s
        return self.standings.decided()

    def launch(self, number):
        return self.standings.launch(TRIALS[number])

    def hold(self, number, process=None):
        """An attempt at a trial for this driver, by another process of this or another machine."""
        stored = StoredTrial(self.store, TRIALS[number].key)
        holder = Holder(host="far", space="another boot", pid=1, started="1")
        lease = Lease(
            holder=process or holder, driver="other", from_attempt=0, from_step=-1, steps=9
        )
        last = max(stored.attempts(), default=0)
        key = f"{stored.attempt_folder(last + 1)}/lease.json"
        assert self.store.put(key, lease.content(), if_absent=True)
        return key, lease


@pytest.fixture
def driver(tmp_path):
    return Driver(tmp_path, "this")


def finish(driver, number):
    stored = StoredTrial(driver.store, TRIALS[number].key)
    result = b'{"status": "finished", "step": 1, "steps": 1, "attempt": 1, "files": {}}'
    assert driver.store.put(stored.result_key, result, if_absent=True)


def test_trials_are_launched_in_order_until_each_is_finished(driver):
    for number in range(3):
        decided = driver.decided()
        assert isinstance(decided, Launch)
        assert decided.trials[0] is TRIALS[number]
        assert driver.launch(number) is not None
    assert driver.decided() == Wait(running=3)
    for trial in TRIALS:
        driver.standings.ended(trial)
    assert isinstance(driver.decided(), Stop)
    assert driver.said == []


def test_a_trial_that_another_driver_trains_is_waited_for_and_the_result_is_taken(driver):
    driver.hold(0)
    assert driver.launch(0) is None
    assert driver.decided().trials == tuple(TRIALS[1:])
    assert driver.said == [
        "note: another dinolab on far is at trials of this study: the two share them"
    ]
    for number in (1, 2):
        driver.launch(number)
        driver.standings.ended(TRIALS[number])
    assert driver.decided(2) == Wait(held=1)
    assert driver.said[1:] == [
        "waiting: 1 held by another dinolab; taken over when its lease is over"
    ]
    finish(driver, 0)
    assert isinstance(driver.decided(2), Stop)
    assert driver.others == [TRIALS[0]]


def test_a_trial_whose_lease_is_quiet_is_taken_over_and_one_that_is_written_is_not(driver):
    key, lease = driver.hold(0)
    assert driver.launch(0) is None
    for beat in range(5):
        driver.store.put(key, replace(lease, beat=beat).content())
        assert driver.decided(expires_s() / 2).trials == tuple(TRIALS[1:])
    assert driver.decided(expires_s() / 2).trials == tuple(TRIALS[1:])
    assert driver.decided(expires_s() / 2).trials == tuple(TRIALS)
    assert driver.launch(0).over == (1,)


def test_a_trial_of_a_driver_that_died_on_this_machine_is_taken_over_at_once(driver):
    gone = replace(Holder.this(), started="0")
    driver.hold(0, gone)
    launched = driver.launch(0)
    assert (launched.over, launched.since) == ((1,), 1)


def test_a_folder_that_a_kill_left_before_the_claim_is_nobodys_attempt(driver):
    stored = StoredTrial(driver.store, TRIALS[0].key)
    (driver.store.local / stored.attempt_folder(1)).mkdir(parents=True)
    launched = driver.launch(0)
    assert (launched.over, launched.since) == ((), 0)


def test_an_attempt_that_failed_is_made_again_after_a_rest_until_the_budget_is_used_up(driver):
    rests = []
    for _ in range(3):
        assert driver.decided(1000).trials[0] is TRIALS[0]
        driver.launch(0)
        retry = driver.standings.failed(TRIALS[0], LOST, new_checkpoint=False)
        assert TRIALS[0] not in driver.decided().trials
        rests.append(retry.after_s if retry else None)
    assert rests == [2, 8, None]
    for number in (1, 2):
        driver.launch(number)
        driver.standings.ended(TRIALS[number])
    assert driver.decided(1000) == Stop(reason="1 of 3 trials failed for good")


def test_a_full_root_is_one_line_and_nothing_starts_until_it_has_rested(driver):
    for number in range(2):
        driver.launch(number)
    for number in range(2):  # both fail of the one trouble
        assert isinstance(
            driver.standings.failed(TRIALS[number], FULL, new_checkpoint=False), Retry
        )
    assert driver.said == ["note: the run root is full (tried again by itself for about 3 minutes)"]
    assert isinstance(driver.decided(1), Wait)
    assert driver.decided(1).trials == tuple(TRIALS)
    driver.launch(0)
    driver.standings.ended(TRIALS[0])
    driver.launch(1)
    driver.standings.failed(TRIALS[1], FULL, new_checkpoint=False)
    assert isinstance(driver.decided(1), Wait)
    assert driver.decided(1).trials == tuple(TRIALS[1:])


def test_a_root_that_stays_full_ends_the_driver_in_one_line(driver):
    starts = []

    def until_the_end():
        while True:
            if isinstance(driver.decided(1), Launch):
                driver.launch(0)
                starts.append(driver.clock.now)
                driver.standings.failed(TRIALS[0], FULL, new_checkpoint=False)

    with pytest.raises(StoreError, match="nothing is lost: the same command goes on") as caught:
        until_the_end()
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreError) as again:
        driver.standings.trouble(str(caught.value))
    assert str(again.value) == str(caught.value)
    assert len(starts) == 5
    assert 2 + 8 + 32 + 128 <= driver.clock.now <= 180
    assert len(driver.said) == 1


def test_troubles_of_the_root_that_pass_do_not_add_up_over_a_long_study(driver):
    for _ in range(9):
        driver.standings.trouble("the run root does not answer")
        assert driver.standings.root_rests
        driver.clock.now += 7200
    assert len(driver.said) == 9


def test_a_damaged_result_is_set_aside_with_a_line_and_made_again(driver):
    stored = StoredTrial(driver.store, TRIALS[0].key)
    driver.store.put(stored.result_key, b"{")
    assert driver.launch(0) is not None
    assert len(driver.said) == 1
    assert "set aside as" in driver.said[0]


def test_why_a_worker_died_is_kept_in_the_folder_of_its_attempt(driver):
    stored = StoredTrial(driver.store, TRIALS[0].key)
    attempt = claimed(stored, steps=9, driver="this", over=(), waits=False)
    attempt.held._ended.set()  # as if its process were gone: it writes no more
    said = {"kind": "infrastructure", "message": "the worker died", "output": "last line\n"}
    assert record_failure(stored, since=0, driver="this", **said) == 1
    assert stored.attempts() == [1]
    assert stored.failed().message == "the worker died"
    assert stored.lease(1).outcome == "failed"
    assert (
        driver.store.get(f"{stored.attempt_folder(1)}/log.txt") == b"last line\nthe worker died\n"
    )
    # What an attempt has said itself stays, and another one gets a folder of its own.
    assert record_failure(stored, since=0, driver="this", kind="ours", message="else") == 1
    assert stored.failed().message == "the worker died"
    assert record_failure(stored, since=1, driver="this", kind="ours", message="no data") == 2
    assert stored.failed().message == "no data"


def test_only_what_is_needed_is_launched_and_what_has_started_is_not_cut(driver):
    needed = [TRIALS[:2]]
    driver.standings = Standings(
        TRIALS, driver.store, "this", say=driver.said.append, finished=driver.others.append,
        clock=driver.clock, needed=lambda known: needed[0],
    )  # fmt: skip
    assert driver.decided().trials == tuple(TRIALS[:2])
    driver.launch(0)
    driver.launch(1)
    driver.standings.ended(TRIALS[0])
    needed[0] = ()
    assert driver.decided() == Wait(running=1)
    driver.standings.ended(TRIALS[1])
    assert isinstance(driver.decided(), Stop)
    needed[0] = TRIALS
    assert driver.decided().trials == (TRIALS[2],)
