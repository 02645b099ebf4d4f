"""What orchestration costs is told from trials of a known length; no speed is asserted."""

import re

import pytest

from benchmarks import orchestration
from benchmarks.orchestration import Took


def test_time_over_the_ideal_is_that_of_the_process_a_trial_runs_in(monkeypatch):
    monkeypatch.setattr(orchestration, "AT_ONCE", 2)
    spans = ((1, [5.0, 5.1, 7.1, 7.2]), (2, [5.5, 6.0, 8.0, 8.2]), (1, [7.4, 7.5, 9.5, 9.6]),
             (2, [8.4, 8.5, 10.5, 11.0]))  # fmt: skip
    took = Took(trials=4, seconds=2.0, wall_s=14.0, spans=spans)
    assert took.ideal_s == 4.0
    assert took.over_s == 5.0
    assert took.working_s == 6.0
    assert took.between_s == 2.0
    first, *rest = orchestration.parts(took)
    assert "first trial 5.0 s, trials 6.0 s, after the last 3.0 s; 2 processes" in first
    assert "from trial to trial: median 0.200 s" in rest[-1]


def test_a_driver_sees_every_simulated_trial_end(capsys):
    orchestration.simulated(4, rows=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "RssAnon" in line] == ["0", "2", "4"]


def test_a_plan_is_of_all_arms_and_seeds(capsys):
    orchestration.main(["--plan", "3", "5"])
    assert re.search(r"plan of 15 trials \(3 arms\): [0-9.]+ s", capsys.readouterr().out)


@pytest.mark.slow
def test_trials_of_a_known_length_are_run_by_the_real_driver():
    took = orchestration.timed("ours", 2, 0.2)
    assert len(took.spans) == 2
    for _, (entered, began, ended, left) in took.spans:
        assert 0 < entered < began < ended < left < took.wall_s
        assert ended - began >= 0.2
