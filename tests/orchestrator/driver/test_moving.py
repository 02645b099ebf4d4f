"""Which runs are asked to go on otherwise: with more workers, or on another machine."""

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablations.study.schema import Resources
from orchestrator.driver import moving
from orchestrator.driver.moving import Moves
from orchestrator.driver.standings import Launched
from orchestrator.plan import Trial
from tests.orchestrator.conftest import baseline_alone, start
from trainers.config import override
from trainers.config.recipe import recipe
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import open_store

CONFIG = override(recipe("digits_tiny"), {"batch_size": 8, "steps": 1000})


class Study:
    """Runs of one arm on two machines, in seconds that pass when they are told to."""

    def __init__(self, monkeypatch, **resources):
        self.now, self.said, self.asked, self.where = 0.0, [], {}, {}
        self.room = {"first": 0, "second": 0}
        monkeypatch.setattr(moving, "ask", self.asked.__setitem__)
        monkeypatch.setattr(moving, "machines_of", lambda name: self.where[name])
        monkeypatch.setattr(moving, "forget", self.where.pop)
        self.standings = SimpleNamespace(launched={})
        self.moves = Moves(
            Resources(**resources), "driver", self.standings, self.free, self.said.append,
            lambda: self.now,
        )  # fmt: skip

    def free(self, but):
        return sum(room for machine, room in self.room.items() if machine not in but)

    def begin(self, seed, machine="first", workers=1, since=0):
        run = Trial(key=f"{seed}", arms=("arm",), seed=seed, config=CONFIG, digest="")
        launched = Launched(over=(), since=since, workers=workers)
        self.standings.launched[run.key] = launched
        self.where[f"driver/{seed}/{since}"] = frozenset({machine})
        self.moves.began(run)
        return run

    def pass_s(self, seconds, *speeds, step=None):
        """So long, the runs at so many images a second."""
        for _ in range(seconds):
            self.now += 1
            for run, speed in speeds:
                at = step or 10 + int(self.now)
                self.moves.came(run, at, {"time/images_per_s": speed})
            self.moves.look()

    def spare(self, seats=0, **room):
        """So many trials more could run, and there is so much room on machines."""
        self.now += 1
        self.room.update(room)
        self.moves.spare(seats)

    def end(self, run, *, again):
        del self.standings.launched[run.key]
        self.moves.ended(run)
        if not again:
            self.moves.settled(run)


class TestMoreWorkers:
    def test_place_that_nobody_waits_for_goes_to_a_run_with_the_fewest(self, monkeypatch):
        study = Study(monkeypatch, workers=1, most_workers=8)
        wide, narrow = study.begin(0, workers=2), study.begin(1)
        study.pass_s(61, (wide, 50.0), (narrow, 25.0))
        study.spare(0, second=1)
        assert study.asked == {}
        study.spare(1)
        assert study.asked == {"driver/1/0": "there is room for 2 workers"}

    def test_as_many_as_there_is_place_for_and_divide_the_batch(self, monkeypatch):
        study = Study(monkeypatch, workers=1, most_workers=8)
        run = study.begin(0, workers=2)
        study.pass_s(61, (run, 50.0))
        study.spare(1, second=8)  # three do not divide eight
        assert study.asked == {}
        study.spare(5)
        assert study.asked == {"driver/0/0": "there is room for 4 workers"}

    def test_only_room_that_nobody_has_counts(self, monkeypatch):
        study = Study(monkeypatch, workers=1, most_workers=8)
        run = study.begin(0)
        study.pass_s(61, (run, 50.0))
        study.spare(7)
        assert study.asked == {}
        study.spare(7, first=1, second=2)
        assert study.asked == {"driver/0/0": "there is room for 4 workers"}

    def test_one_at_a_time_and_no_other_before_it_has_ended(self, monkeypatch):
        study = Study(monkeypatch, workers=1, most_workers=8)
        first, second = study.begin(0), study.begin(1)
        study.pass_s(61, (first, 50.0), (second, 50.0))
        study.spare(1, second=1)
        study.spare(1)
        assert list(study.asked) == ["driver/0/0"]
        study.end(first, again=True)
        study.spare(1)
        assert list(study.asked) == ["driver/0/0", "driver/1/0"]

    @pytest.mark.parametrize(("after", "step"), [(58, None), (61, 630)])
    def test_not_soon_after_its_start_nor_soon_before_its_end(self, monkeypatch, after, step):
        # At 50 images a second 370 steps of 8 are 59 s.
        study = Study(monkeypatch, workers=1, most_workers=8)
        run = study.begin(0)
        study.pass_s(after, (run, 50.0), step=step)
        study.spare(3, second=3)
        assert study.asked == {}

    def test_not_before_it_is_known_how_fast_it_is(self, monkeypatch):
        study = Study(monkeypatch, workers=1, most_workers=8)
        study.begin(0)
        study.pass_s(100)
        study.spare(3, second=3)
        assert study.asked == {}

    def test_never_where_the_number_is_fixed(self, monkeypatch):
        study = Study(monkeypatch)
        run = study.begin(0)
        study.pass_s(100, (run, 50.0))
        study.spare(3, second=3)
        assert study.asked == {}

    def test_room_is_looked_for_no_oftener_than_once_a_second(self, monkeypatch):
        study = Study(monkeypatch, workers=1, most_workers=8)
        run = study.begin(0)
        study.pass_s(61, (run, 50.0))
        study.spare(1)
        study.room["second"] = 1
        study.moves.spare(1)
        assert study.asked == {}
        study.spare(1)
        assert list(study.asked) == ["driver/0/0"]


class TestStragglers:
    def slow(self, monkeypatch, **resources):
        study = Study(monkeypatch, **resources)
        runs = [study.begin(0), study.begin(1, "second"), study.begin(2, "second")]
        return study, runs, list(zip(runs, (24.0, 50.0, 52.0), strict=True))

    def test_a_run_half_as_fast_as_others_of_its_arm_is_said_once(self, monkeypatch):
        study, _, speeds = self.slow(monkeypatch)
        study.pass_s(60, *speeds)
        assert study.said == []
        study.pass_s(60, *speeds)
        (line,) = study.said
        assert line == (
            "note: arm seed 0 is slow: 24 images a second, others of its arm 51; "
            "--move-stragglers lets it go on on another machine"
        )
        study.spare(second=1)
        assert study.asked == {}
        assert not study.moves.needs_room

    def test_one_that_was_slow_for_a_moment_is_not(self, monkeypatch):
        study, (run, *_), speeds = self.slow(monkeypatch)
        for _ in range(3):
            study.pass_s(40, *speeds)
            study.pass_s(1, (run, 30.0))
        assert study.said == []

    def test_nothing_is_said_where_too_few_show_what_is_usual(self, monkeypatch):
        study = Study(monkeypatch)
        study.pass_s(100, (study.begin(0), 1.0), (study.begin(1, "second"), 50.0))
        assert study.said == []

    def test_where_another_machine_has_room_it_goes_on_there(self, monkeypatch):
        study, (run, *_), speeds = self.slow(monkeypatch, move_stragglers=True)
        study.pass_s(61, *speeds)
        assert "move-stragglers" not in study.said[0]
        assert study.moves.needs_room
        study.spare(first=1)
        assert study.asked == {}
        # However few may run at once: it is one of them.
        study.spare(0, second=1)
        assert study.asked == {"driver/0/0": "slow here, at 24 images a second"}
        study.end(run, again=True)
        assert study.moves.avoided(run) == ("first",)
        study.begin(0, "second", since=1)
        assert not study.moves.needs_room
        assert study.moves.avoided(run) == ()

    def test_it_comes_back_to_no_machine_that_it_has_left(self, monkeypatch):
        study, (run, *_), speeds = self.slow(monkeypatch, move_stragglers=True)
        study.pass_s(61, *speeds)
        study.spare(first=1, second=1)
        study.end(run, again=True)
        again = study.begin(0, "second", since=1)
        study.pass_s(200, (again, 24.0), *speeds[1:])
        study.spare()
        assert list(study.asked) == ["driver/0/0"]
        study.spare(third=1)
        assert list(study.asked) == ["driver/0/0", "driver/0/1"]
        study.end(again, again=True)
        assert study.moves.avoided(again) == ("first", "second")

    def test_one_that_ended_meanwhile_keeps_no_place(self, monkeypatch):
        study, (run, *_), speeds = self.slow(monkeypatch, move_stragglers=True)
        study.pass_s(61, *speeds)
        study.spare(second=1)
        study.end(run, again=False)
        assert not study.moves.needs_room

    def test_where_there_was_no_room_after_all_the_slow_machine_will_do(self, monkeypatch):
        study, (run, *_), speeds = self.slow(monkeypatch, move_stragglers=True)
        study.pass_s(61, *speeds)
        study.spare(second=1)
        study.end(run, again=True)
        study.moves.settled(run)
        assert study.moves.avoided(run) == ()

    def test_records_that_are_told_again_say_nothing_of_the_new_machine(self, monkeypatch):
        study, (run, *_), speeds = self.slow(monkeypatch, move_stragglers=True)
        study.pass_s(61, *speeds)
        study.spare(second=1)
        study.end(run, again=True)
        again = study.begin(0, "second", since=1)
        study.pass_s(61, (again, 24.0), step=30)
        assert len(study.said) == 1

    def test_nothing_moves_before_it_is_known_where_it_runs(self, monkeypatch):
        study, _, speeds = self.slow(monkeypatch, move_stragglers=True)
        study.where["driver/0/0"] = frozenset()
        study.pass_s(61, *speeds)
        study.spare(second=1)
        assert study.asked == {}


def slowed(process, over):
    """Let a process run a tenth of the time, as on a machine that has too much to do."""
    with contextlib.suppress(ProcessLookupError):
        while not over.wait(0.01):
            os.kill(process, signal.SIGSTOP)
            over.wait(0.09)
            os.kill(process, signal.SIGCONT)


def begun(root):
    """The newest attempt of each trial that has made records: its lease, by (seed, attempt)."""
    found = {}
    for path in root.glob("trials/*/attempts/*/metrics-*.jsonl"):
        trial = StoredTrial(open_store(str(root)), path.parts[-4])
        number = int(path.parts[-2])
        seed = json.loads(trial.config())["seed"]
        found[seed, number] = trial.lease(number)
    return found


def raylet_of(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.slow
def test_a_run_on_a_slow_machine_goes_on_on_another_one(tmp_path, cluster):
    study, root, over = tmp_path / "slow.yaml", tmp_path / "runs", threading.Event()
    study.write_text(baseline_alone("slow", seeds=4, steps=400, log_every=5, checkpoint_every=400))
    told = {"RAY_ADDRESS": cluster, "DINOLAB_MOVE_AFTER_S": "3"}
    with start("run", study, "--root", root, "--move-stragglers", **told) as driver:
        until, machines = time.monotonic() + 240, {}
        try:
            while driver.poll() is None:
                assert time.monotonic() < until
                for place, lease in begun(root).items():
                    if place not in machines:
                        machines[place] = raylet_of(lease.holder.pid)
                        if place == (3, 1):
                            process = lease.holder.pid
                            threading.Thread(target=slowed, args=(process, over)).start()
                        over.set() if place == (3, 2) else None
                time.sleep(0.1)
        finally:
            over.set()
        said = driver.stdout.read()
    assert driver.returncode == 0, said
    assert said.count("note: baseline seed 3 is slow: ") == 1, said
    assert said.count("interrupted: slow here, at ") == 1, said
    assert machines[3, 1] != machines[3, 2]
