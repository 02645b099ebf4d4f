"""Which trials start, what is waited for, and when a study ends."""

import random
from dataclasses import dataclass

import pytest

from orchestrator import schedule
from orchestrator.schedule import Launch, Stop, Wait


@dataclass(frozen=True)
class One:
    key: str


TRIALS = [One(f"{arm}{seed}") for seed in (0, 1) for arm in ("base", "no_crops")]


def test_a_fixed_design_goes_seed_by_seed_and_arm_by_arm():
    assert schedule.next(TRIALS, {}) == Launch(trials=tuple(TRIALS))
    started = {"base0": "running", "no_crops0": "finished"}
    assert schedule.next(TRIALS, started) == Launch(trials=(TRIALS[2], TRIALS[3]))


@pytest.mark.parametrize("standing", ["finished", "running", "held", "resting", "failed"])
def test_a_trial_that_is_not_open_does_not_start(standing):
    assert schedule.next(TRIALS, {"base0": standing}) == Launch(trials=tuple(TRIALS[1:]))


def test_what_is_running_here_held_elsewhere_or_resting_is_waited_for():
    standings = dict(zip([one.key for one in TRIALS],
                         ["finished", "running", "held", "resting"], strict=True))  # fmt: skip
    decided = schedule.next(TRIALS, standings)
    assert decided == Wait(running=1, held=1, resting=1)
    assert str(decided) == "1 running here, 1 held by another dinolab, 1 to be tried again"


def test_a_study_stops_when_each_trial_has_finished_or_failed_for_good():
    over = {one.key: "finished" for one in TRIALS}
    assert schedule.next(TRIALS, over) == Stop(reason="all 4 trials are finished")
    over["base1"] = "failed"
    assert schedule.next(TRIALS, over) == Stop(reason="1 of 4 trials failed for good")
    assert schedule.next([], {}) == Stop(reason="all 0 trials are finished")


@pytest.mark.parametrize("seed", range(20))
def test_however_attempts_end_each_trial_is_finished_or_failed_before_the_end(seed):
    chance = random.Random(seed)
    trials = [One(f"trial{number}") for number in range(12)]
    standings, launched = {}, []
    while not isinstance(decided := schedule.next(trials, standings), Stop):
        running = [key for key, standing in standings.items() if standing == "running"]
        if isinstance(decided, Launch) and len(running) < 3:
            chosen = decided.trials[0].key
            standings[chosen] = "running"
            launched.append(chosen)
            continue
        busy = [key for key, one in standings.items() if one in ("running", "held", "resting")]
        assert busy
        key = chance.choice(busy)
        after = chance.choice(["finished", "failed", "held", "resting", None])
        if after is None:
            del standings[key]
        else:
            standings[key] = after
    assert set(standings.values()) <= {"finished", "failed"}
    assert len(standings) == len(trials)
    first_time = list(dict.fromkeys(launched))
    assert first_time == sorted(first_time, key=lambda key: int(key.removeprefix("trial")))
