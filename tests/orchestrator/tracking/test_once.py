"""Every number of a trial is in MLflow once, whatever was lost, killed or taken over."""

import functools
import threading

import pytest

from orchestrator.tracking import runs
from orchestrator.tracking.mirror import Mirror
from tests.orchestrator.tracking.conftest import Trial, curve, held
from trainers.config import TrainConfig, flatten
from trainers.system.store import LocalStore

pytestmark = pytest.mark.filterwarnings("ignore")

TITLE = "baseline · seed 0"


def sync(store, key="key", arms=("baseline",), seed=0, study="mini"):
    mirror = Mirror(study, store, print)
    mirror.sync(key, arms, seed)
    return mirror


def expected(records):
    names = [name for name in records[0] if "@" not in name]
    return {name: [(step, one[name]) for step, one in records.items()] for name in names}


@pytest.mark.parametrize(
    ("is_done", "is_taken_over"),
    [
        pytest.param(True, True, id="answer lost, another attempt"),
        pytest.param(True, False, id="answer lost", marks=pytest.mark.slow),
        pytest.param(False, True, id="not written, another attempt", marks=pytest.mark.slow),
        pytest.param(False, False, id="not written", marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_write_leaves_what_the_next_driver_makes_equal(
    store, client, monkeypatch, killed_at_write, is_done, is_taken_over
):
    monkeypatch.setattr(runs, "METRICS_A_BATCH", 8)
    trial = Trial(store, "key")
    kill_at, is_killed = 0, True
    while is_killed:
        kill_at, study = kill_at + 1, f"study {kill_at}"
        store.delete("trials/key/result.json")
        if is_taken_over:
            trial.segment(1, curve(6, pace=2.0))
        else:
            trial.finish(1, curve(9))
        is_killed = killed_at_write(functools.partial(sync, store, study=study), kill_at, is_done)
        if is_taken_over:
            # Another attempt, on a machine of another pace, went on from step 3.
            trial.finish(2, {**curve(3, pace=2.0), **dict(list(curve(9).items())[4:])})
        sync(store, study=study)
        found = held(client, study)
        assert found.keys() == {study, "baseline", TITLE}
        metrics = found[TITLE]["metrics"]
        assert [step for step, _ in metrics.pop("time/step_s")] == list(range(10))
        assert metrics == {k: v for k, v in expected(curve(9)).items() if k != "time/step_s"}
        assert (found[TITLE]["status"], found[TITLE]["parent"]) == ("FINISHED", "baseline")
        assert found[TITLE]["parameters"]["seed"] == "0"
        assert len(found[TITLE]["parameters"]) == len(flatten(TrainConfig()))
    assert kill_at > 9


def test_records_come_while_they_are_written_and_segments_are_read_once(store, client, monkeypatch):
    monkeypatch.setattr(runs, "METRICS_A_BATCH", 8)
    trial = Trial(store, "key")
    read, get = [], LocalStore.get
    monkeypatch.setattr(LocalStore, "get", lambda self, key: read.append(key) or get(self, key))
    records = curve(9)
    mirror = Mirror("mini", store, print)
    first = trial.segment(1, dict(list(records.items())[:3]))
    for stop in (4, 5, 8):
        last = trial.segment(1, {step: records[step] for step in range(3, stop)})
        mirror.sync("key", ["baseline"], 0)
        assert held(client)[TITLE]["metrics"] == expected(
            {step: records[step] for step in range(stop)}
        )
        assert held(client)[TITLE]["status"] == "RUNNING"
    assert [read.count(key) for key in (first, last)] == [1, 3]
    run = mirror.runs.find("baseline", "key").run_id
    trial.finish(1, records)
    mirror.sync("key", ["baseline"], 0)
    assert held(client)[TITLE]["metrics"] == expected(records)
    assert held(client)[TITLE]["status"] == "FINISHED"
    assert mirror.runs.find("baseline", "key").run_id == run
    read.clear()
    sync(store)
    assert not any("metrics-" in key for key in read)


def test_an_attempt_with_other_values_replaces_the_run_while_it_trains(store, client):
    trial = Trial(store, "key")
    trial.segment(1, curve(6))
    mirror = sync(store)
    before = mirror.runs.find("baseline", "key").run_id
    trial.segment(2, curve(4, shift=1.0))
    mirror.sync("key", ["baseline"], 0)
    # It has not come so far yet that all of it could be compared.
    trial.segment(2, curve(8, shift=1.0))
    mirror.sync("key", ["baseline"], 0)
    assert held(client)[TITLE]["metrics"] == expected(curve(8, shift=1.0))
    assert client.get_run(before).info.lifecycle_stage == "deleted"
    trial.finish(2, curve(9, shift=1.0))
    mirror.sync("key", ["baseline"], 0)
    assert held(client)[TITLE]["metrics"] == expected(curve(9, shift=1.0))


def test_a_trial_that_several_arms_share_is_a_whole_run_in_each(store, client):
    trial = Trial(store, "key")
    trial.segment(1, curve(5))
    mirror = sync(store, arms=("one",))
    trial.segment(1, curve(7))
    mirror.sync("key", ["one", "other"], 0)
    mirror.sync("key", ["one", "other"], 0)
    trial.finish(1, curve(9))
    mirror.sync("key", ["one", "other"], 0)
    found = client.search_runs([mirror.runs.experiment], "tags.`dinolab.key` = 'key'")
    for run in found:
        history = client.get_metric_history(run.info.run_id, "loss/total")
        assert [(one.step, one.value) for one in history] == expected(curve(9))["loss/total"]
    assert {run.data.tags["dinolab.arm"] for run in found} == {"one", "other"}


@pytest.mark.slow
def test_two_drivers_at_once_make_one_tree(store, client):
    for number in range(4):
        Trial(store, f"key{number}").finish(1, curve(9))
    begun = threading.Barrier(2)

    def drive():
        mirror = Mirror("mini", store, print)
        for number in range(4):
            begun.wait()
            for _ in range(3):
                try:
                    mirror.sync(f"key{number}", ["baseline"], number)
                    break
                except Exception:  # noqa: BLE001 (the other driver was first)
                    mirror = Mirror("mini", store, print)

    both = [threading.Thread(target=drive) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    for number in range(4):
        sync(store, f"key{number}", seed=number)
    found = held(client)
    assert found.keys() == {"mini", "baseline", *(f"baseline · seed {n}" for n in range(4))}
    for number in range(4):
        one = found[f"baseline · seed {number}"]
        assert one["metrics"] == expected(curve(9))
        assert (one["status"], one["parent"]) == ("FINISHED", "baseline")
