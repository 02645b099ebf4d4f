"""Pairs of runs on different devices or versions keep their label, and are said."""

import dataclasses

import pytest

from ablations.spec import Hypothesis
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import judge
from ablations.verdicts.machines import machines_text

CPU, GPU = "cpu (x86_64, PyTorch 2.11.0)", "cuda (H100, PyTorch 2.11.0, CUDA 12.8)"
SEEDS = tuple(range(6))
HYPOTHESIS = Hypothesis(
    metric="knn/cls_top1", contrast=("arm", "baseline"), direction="rises", smallest_effect=0.1
)


def verdict(machines, hypothesis=HYPOTHESIS):
    """The verdict on runs whose machine is `machines(arm, seed)`."""
    runs = {
        (arm, seed): Run(
            status="finished",
            start={},
            end={"knn/cls_top1": (0.8 if arm == "arm" else 0.5) + 0.01 * seed * (arm == "arm")},
            machine=machines(arm, seed),
        )
        for arm in ("arm", "baseline")
        for seed in SEEDS
    }
    return judge({"h": hypothesis}, {}, runs, SEEDS)["h"]


@pytest.mark.slow
def test_pairs_on_one_machine_each_are_not_said():
    plain = verdict(lambda _arm, _seed: "")
    assert "pairs differ" not in plain.reason
    assert verdict(lambda _arm, _seed: CPU) == plain
    assert verdict(lambda _arm, seed: CPU if seed % 2 else GPU) == plain


@pytest.mark.slow
def test_pairs_that_differ_are_said_by_seed_and_nothing_else_changes():
    plain = verdict(lambda _arm, _seed: CPU)
    mixed = verdict(lambda arm, seed: GPU if arm == "arm" and seed in (1, 4) else CPU)
    on = f"arm on {GPU}, baseline on {CPU}"
    said = f"; pairs differ in device, versions or workers, seeds 1, 4: {on}"
    assert mixed == dataclasses.replace(plain, reason=plain.reason + said)
    assert mixed.label == "supported"


def test_a_machine_that_was_not_recorded_is_said_beside_one_that_was():
    mixed = verdict(lambda arm, seed: CPU if (arm, seed) == ("arm", 0) else "")
    assert "seed 0: " in mixed.reason
    assert "baseline on a machine that was not recorded" in mixed.reason


@pytest.mark.parametrize("status", ["missing", "failed"])
def test_a_run_that_has_not_ended_is_on_no_machine(status):
    runs = {
        ("arm", 0): Run(status="finished", start={}, end={}, machine=CPU),
        ("baseline", 0): Run(status=status, start={}, end={}, machine=""),
    }
    assert machines_text(HYPOTHESIS, runs, (0,)) == ""


def test_runs_that_a_design_has_stopped_before_have_no_machine():
    runs = {
        (arm, seed): Run(
            status="skipped" if arm == "arm" and seed >= 4 else "finished",
            start={},
            end={},
            machine="" if arm == "arm" and seed >= 4 else CPU,
        )
        for arm in ("arm", "baseline")
        for seed in SEEDS
    }
    assert machines_text(HYPOTHESIS, runs, SEEDS) == ""
