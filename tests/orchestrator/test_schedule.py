"""Which trials start, what is waited for, and when a study ends."""

import random
from dataclasses import dataclass

import pytest

from ablations.design import Design
from ablations.spec import Hypothesis, Multiplicity
from ablations.verdicts.evidence import Run
from orchestrator import schedule
from orchestrator.schedule import Launch, Sequential, Stop, Wait


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


@dataclass(frozen=True)
class Trial:
    arms: tuple[str, ...]
    seed: int

    @property
    def key(self):
        return f"{self.arms[0]}{self.seed}"


SEEDS = tuple(range(12))
EFFECTS = {"base": 0.0, "up": 2.0, "down": -2.0, "half": 0.7, "alike": 0.0, "free": 0.0}
PLAN = [Trial((arm,), seed) for seed in SEEDS for arm in EFFECTS]


def sequential(costs=None, **hypotheses):
    return Sequential(
        design=Design(looks=(8, 10, 12), spending="pocock", futility="equivalence"),
        hypotheses=hypotheses,
        gates={},
        multiplicity=Multiplicity(),
        references={},
        seeds=SEEDS,
        costs=dict.fromkeys(EFFECTS, 1.0) | (costs or {}),
    )


def compared(arm, **fields):
    return Hypothesis(
        metric="m", contrast=(arm, "base"), direction="rises", smallest_effect=1.0,
        **{"family": arm, **fields},
    )  # fmt: skip


def run(value):
    return Run(status="finished", start={}, end={"m": value})


def measured(arms=EFFECTS, seeds=range(8), noise=0.3):
    chance = random.Random(0)
    return {
        (arm, seed): run(EFFECTS[arm] + chance.gauss(0, noise))
        for arm in arms
        for seed in seeds
    }  # fmt: skip


def places(trials):
    return [(arm, one.seed) for one in trials for arm in one.arms]


UP_AND_HALF = sequential(up=compared("up"), half=compared("half"))
NAMED = ("base", "up", "half")


def test_a_sequential_design_starts_with_paired_seeds_up_to_its_first_look():
    found = places(schedule.needed(PLAN, UP_AND_HALF, {}))
    of_hypotheses = [place for place in found if place[0] in NAMED]
    assert len(of_hypotheses) == 3 * 8
    assert [seed for _, seed in of_hypotheses] == sorted(seed for _, seed in of_hypotheses)
    assert found[:3] == [("up", 0), ("base", 0), ("half", 0)]


def test_arms_that_nothing_decides_run_at_all_seeds_after_the_others():
    found = places(schedule.needed(PLAN, UP_AND_HALF, {}))
    assert found[24:] == [(a, seed) for seed in SEEDS for a in ("down", "alike", "free")]


def test_no_arm_goes_beyond_a_look_before_all_of_its_runs_are_there():
    runs = measured()
    del runs["half", 7]
    found = places(schedule.needed(PLAN, UP_AND_HALF, runs))
    assert max(seed for arm, seed in found if arm in NAMED) == 7


def test_an_arm_is_dropped_once_all_its_hypotheses_are_decided_and_not_before():
    found = places(schedule.needed(PLAN, UP_AND_HALF, measured()))
    later = [(arm, seed) for arm, seed in found if arm in NAMED and seed >= 8]
    assert later == [("half", 8), ("base", 8), ("half", 9), ("base", 9)]


def test_a_study_of_which_all_is_decided_needs_nothing():
    decided = sequential(up=compared("up"))
    open_ = [one for one in PLAN if one.arms[0] in ("base", "up")]
    assert schedule.needed(open_, decided, measured()) == ()


def test_a_control_runs_as_long_as_what_it_is_a_control_of():
    design = sequential(half=compared("half", control="up"))
    found = places(schedule.needed(PLAN, design, measured()))
    assert {arm for arm, seed in found if seed == 8} == {
        "half",
        "base",
        "up",
        "down",
        "alike",
        "free",
    }


def test_freed_slots_go_to_what_tells_most_for_its_cost():
    runs = measured(noise=0.3)
    chance = random.Random(1)
    for seed in range(8):  # the same mean, and more noise
        runs["alike", seed] = run(0.7 + chance.gauss(0, 2.0))
    both = {"half": compared("half"), "alike": compared("alike")}
    later = [one for one in PLAN if one.seed >= 8]
    first = places(schedule.needed(later, sequential(**both), runs))[0]
    assert first == ("half", 8)
    costly = places(schedule.needed(later, sequential({"half": 1000.0}, **both), runs))[0]
    assert costly == ("alike", 8)


def test_a_trial_of_several_arms_is_needed_once():
    shared = [Trial(("up", "half"), seed) for seed in SEEDS] + [Trial(("base",), s) for s in SEEDS]
    found = schedule.needed(shared, UP_AND_HALF, {})
    assert len(found) == len(set(found)) == 16


def test_what_is_needed_follows_from_the_runs_alone():
    runs = measured()
    shuffled = dict(random.Random(3).sample(list(runs.items()), len(runs)))
    assert schedule.needed(PLAN, UP_AND_HALF, runs) == schedule.needed(PLAN, UP_AND_HALF, shuffled)
