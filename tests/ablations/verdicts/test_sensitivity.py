"""What no arm moves cannot be shown, and what no control moves is not called equal."""

import itertools

import numpy as np
import pytest

from ablations.spec import Gate, Hypothesis
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import decisive_p, judge
from ablations.verdicts.rule import Control, decide
from ablations.verdicts.sensitivity import control_of, largest_effect

SEEDS = range(8)
NOISE = np.array([-0.03, 0.02, 0.01, -0.01, 0.03, -0.02, 0.015, -0.015])


def runs_at(metric="probe/knn", **levels):
    """Finished runs of arms around these levels, with the same noise in all and a little more."""
    return {
        (arm, seed): Run(
            status="finished", start={}, end={metric: level + NOISE[(seed + number) % 8] / 3}
        )
        for number, (arm, level) in enumerate(levels.items())
        for seed in SEEDS
    }


def judged(runs, gates=(), **change):
    given = {
        "metric": "probe/knn",
        "contrast": ("arm", "baseline"),
        "direction": "holds",
        "smallest_effect": 0.1,
    }
    return judge({"h": Hypothesis(**(given | change))}, dict(gates), runs, SEEDS)["h"]


@pytest.mark.parametrize("direction", ["rises", "falls", "differs", "holds"])
def test_an_end_point_that_no_arm_moves_is_insensitive_whatever_its_interval(direction):
    found = judged(runs_at(baseline=0, arm=0.0, other=0.09), direction=direction, control="other")
    assert found.label == "insensitive"
    assert found.sensitivity == pytest.approx(0.9, abs=0.02)
    assert "no arm moves this end point by 0.1: the largest effect is 0.09 (other)" in found.reason
    assert found.seeds_needed is None


def test_an_arm_that_is_in_no_hypothesis_shows_that_the_end_point_moves():
    found = judged(runs_at(baseline=0, arm=0.0, other=-0.3), direction="rises")
    assert found.label == "refuted"
    assert found.largest_effect.of == "other"
    assert found.sensitivity == pytest.approx(3, abs=0.05)


def test_only_arms_that_finished_and_passed_their_gates_count():
    runs = runs_at(baseline=0, arm=0.0, other=0.3)
    gate = Gate(arms=("other",), metric="probe/knn", at_least=5)
    assert judged(runs, {"g": gate}).label == "insensitive"
    runs["other", 3] = Run(status="collapsed", start={}, end={"probe/knn": 0.3})
    assert judged(runs).label == "insensitive"


def test_its_own_contrast_shows_that_the_end_point_moves():
    found = judged(runs_at(baseline=0, up=0.08, down=-0.08), contrast=("up", "down"))
    assert found.label == "refuted"
    assert found.sensitivity >= 1


def test_supported_is_never_insensitive():
    numbers = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
    for mean, half, direction in itertools.product(
        numbers, (0.1, 0.6, 1.5), ("rises", "falls", "differs")
    ):
        given = {
            "direction": direction,
            "smallest_effect": 1.0,
            "alpha": 0.05,
            "mean": mean,
            "interval": (mean - half, mean + half),
            "interval_equivalence": (mean - 0.8 * half, mean + 0.8 * half),
            "p_adjusted": 0.01,
        }
        label, _ = decide(**given)
        assert decide(**given, sensitivity=abs(mean))[0] == (
            label if abs(mean) >= 1 else "insensitive"
        )
        assert label != "supported" or abs(mean) >= 1


@pytest.mark.parametrize(
    ("control", "holds", "differs"),
    [
        ("other", "supported", "equivalent"),
        (["other", "baseline"], "supported", "equivalent"),
        ({"other": -1.0, "baseline": 1.0}, "supported", "equivalent"),
        ("alike", "insensitive", "insensitive"),
        ("lost", "inconclusive", "inconclusive"),
        ("", "inconclusive", "inconclusive"),
    ],
)
def test_nothing_is_called_equal_unless_a_declared_control_differs(control, holds, differs):
    runs = runs_at(baseline=0, arm=0.01, other=0.3, alike=0.05, lost=0.5)
    del runs["lost", 2]
    control = tuple(control) if isinstance(control, list) else control
    for direction, label in (("holds", holds), ("differs", differs)):
        found = judged(runs, direction=direction, control=control)
        assert found.label == label
        assert found.seeds_needed is None
    why = {"alike": "its control does not differ", "lost": "not finished", "": "no control was"}
    if isinstance(control, str) and control in why:
        assert why[control] in found.reason


def test_without_a_control_an_effect_that_is_excluded_is_refuted_and_not_called_equivalent():
    runs = runs_at(baseline=0, arm=0.01, other=0.3)
    assert judged(runs, direction="rises").label == "refuted"
    assert judged(runs, direction="rises", control="other").label == "equivalent"


def test_a_control_that_missed_its_gate_shows_nothing():
    gate = Gate(arms=("other",), metric="probe/knn", at_least=5)
    runs = runs_at(baseline=0, arm=0.01, other=0.3, moves=0.5)
    assert judged(runs, {"g": gate}, control="other").label == "inconclusive"


def test_a_control_by_name_stands_in_for_the_first_side_and_its_metric():
    runs = runs_at(baseline=0, free=0.5)
    for (arm, seed), run in runs_at("probe/token", arm=0.0, free=0.4).items():
        end = {**runs[arm, seed].end, **run.end} if (arm, seed) in runs else run.end
        runs[arm, seed] = Run(status="finished", start={}, end=end)
    found = judged(runs, metric="probe/token", metric_against="probe/knn", control="free")
    assert found.control.mean == pytest.approx(0.4, abs=0.01)
    assert found.label == "supported"


def test_small_effects_are_tagged_by_the_adjusted_p_for_holds_too():
    runs = runs_at(baseline=0, arm=0.05, other=0.5)
    assert judged(runs, control="other").tags == ("negligible-but-nonzero",)
    given = {"direction": "differs", "control": "other"}
    assert judged(runs, **given).tags == ("negligible-but-nonzero",)
    hypothesis = Hypothesis(
        metric="probe/knn", contrast=("arm", "baseline"), smallest_effect=0.1, **given
    )
    many = {str(number): hypothesis for number in range(7)}
    for verdict in judge(many, {}, runs, SEEDS).values():
        assert verdict.p <= 0.05
        assert (verdict.tags == ()) == (verdict.p_adjusted > 0.05)


def test_a_small_effect_against_the_prediction_is_tagged_opposite():
    runs = runs_at(baseline=0, arm=-0.05, other=0.5)
    found = judged(runs, direction="rises", control="other")
    assert (found.label, found.tags) == ("equivalent", ("negligible-but-nonzero", "opposite"))
    assert "though against the prediction (p 0.0078)" in found.reason
    assert "opposite" not in judged(runs, direction="falls", control="other").tags
    assert "opposite" not in judged(runs, direction="differs", control="other").tags
    alone = judged(runs, direction="rises")
    assert (alone.label, alone.tags) == ("refuted", ("negligible-but-nonzero",))
    large = judged(runs_at(baseline=0, arm=-0.5, other=0.5), direction="rises")
    assert (large.label, large.tags) == ("refuted", ())


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (("a", "a"), "control compares 'a' with itself"),
        (("a", "b", "c"), "control must be .* got 3 arms"),
        ({"a": -1.0}, "control must give an arm a weight above 0"),
        ({"a": 0.0}, "control must give each arm a weight other than 0"),
        ({"arm": 2.0, "baseline": -2.0}, "weights that sum to 2, and what it is for 1"),
        ({"a": 1.5}, "weights that sum to 1.5, and what it is for 1"),
        ("arm", "control is what the hypothesis compares"),
        ("baseline", "control compares baseline with itself"),
        (3, "must be an arm"),
    ],
)
def test_what_is_no_control_is_refused(control, message):
    with pytest.raises(ValueError, match=message):
        judged({}, control=control)


def test_the_arm_that_moves_the_end_point_most_is_named_before_a_contrast_that_does_as_much():
    found = judged(runs_at(baseline=0, arm=0.0, far=-0.5, other=0.3), direction="rises")
    assert (found.largest_effect.of, found.largest_effect.effect) == (
        "far", pytest.approx(0.5, abs=0.01),
    )  # fmt: skip
    found = judged(runs_at(baseline=0, arm=0.5, other=0.3), direction="rises", control="other")
    assert found.largest_effect.of == "arm"
    assert found.largest_effect.effect == pytest.approx(found.mean)


def test_what_no_change_rests_on_is_the_p_of_equivalence():
    stated = {
        name: Hypothesis(
            metric="probe/knn", contrast=("arm", "baseline"), direction=direction,
            smallest_effect=0.1,
        )
        for name, direction in (("holds", "holds"), ("rises", "rises"))
    }  # fmt: skip
    found = judge(stated, {}, runs_at(baseline=0, arm=0.06), SEEDS)
    assert decisive_p(stated, found) == {
        "holds": found["holds"].p_equivalence, "rises": found["rises"].p_adjusted,
    }  # fmt: skip
    assert found["holds"].p_equivalence != found["holds"].p_adjusted


def test_what_failed_rests_on_no_p_though_it_has_some():
    stated = {
        direction: Hypothesis(
            metric="probe/knn", contrast=("arm", "baseline"), direction=direction,
            smallest_effect=0.1,
        )
        for direction in ("holds", "rises")
    }  # fmt: skip
    runs = runs_at(baseline=0, arm=0.06)
    del runs["arm", 3]
    found = judge(stated, {}, runs, SEEDS)
    assert found["holds"].p_equivalence is not None
    assert decisive_p(stated, found) == {"holds": None, "rises": None}


def test_of_two_metrics_each_shows_what_an_arm_moves():
    runs = runs_at("m", baseline=0, arm=0.0, far=0.0)
    for place, run in runs_at("k", baseline=0, arm=0.0, far=0.5).items():
        runs[place] = Run(status="finished", start={}, end={**runs[place].end, **run.end})
    for metric, against in (("m", "k"), ("k", "m")):
        stated = Hypothesis(
            metric=metric, metric_against=against, contrast=("arm", "baseline"),
            direction="holds", smallest_effect=0.1,
        )  # fmt: skip
        largest = largest_effect(stated, runs, SEEDS, own=0.0)
        assert (largest.of, largest.effect) == ("far", pytest.approx(0.5, abs=0.01))


def test_a_control_is_stored_by_the_names_of_its_fields():
    assert Control(found="differs", mean=0.3, interval=(0.2, 0.4)).to_json() == {
        "found": "differs", "mean": 0.3, "interval": [0.2, 0.4],
    }  # fmt: skip
    assert Control(found="missing").to_json()["interval"] is None


def test_an_arm_that_a_design_stopped_before_its_first_run_moves_nothing():
    runs = runs_at(baseline=0, arm=0.0, other=0.5)
    stopped = {("later", seed): Run(status="skipped", start={}, end={}) for seed in SEEDS}
    assert judged(runs | stopped, control="other") == judged(runs, control="other")


def test_without_a_baseline_arms_are_compared_with_what_the_hypothesis_compares_with():
    stated = Hypothesis(
        metric="m", contrast=("arm", "other"), direction="holds", smallest_effect=0.1
    )
    runs = runs_at("m", arm=0.0, other=0.0, third=0.5)
    largest = largest_effect(stated, runs, SEEDS, own=0.0)
    assert largest.of == "third"
    assert largest.effect == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("differences", "found"),
    [
        (1.0 + NOISE, "differs"),
        (-1.0 + NOISE, "differs"),
        # All of one sign, but for the interval one of them is too far away.
        (np.array([0.05] * 7 + [2.0]), "alike"),
    ],
)
def test_a_control_differs_where_its_interval_is_to_one_side_of_0(differences, found):
    values = {"baseline": np.zeros(8), "other": differences}
    runs = {
        (arm, seed): Run(status="finished", start={}, end={"m": float(of[seed])})
        for arm, of in values.items()
        for seed in SEEDS
    }
    stated = Hypothesis(
        metric="m", contrast=("arm", "baseline"), direction="holds", smallest_effect=0.1,
        control="other",
    )  # fmt: skip
    assert control_of(stated, runs, SEEDS).found == found


@pytest.mark.parametrize(
    ("ran", "planned", "found"), [(1, 1, "missing"), (2, 2, "differs"), (2, 3, "missing")]
)
def test_a_control_of_two_seeds_can_differ_where_no_more_are_planned(ran, planned, found):
    stated = Hypothesis(
        metric="m", contrast=("arm", "baseline"), direction="holds", smallest_effect=0.1,
        control="other", alpha=0.4, test="t",
    )  # fmt: skip
    runs = runs_at("m", baseline=0, other=1.0)
    left = {place: run for place, run in runs.items() if place[1] < ran}
    assert control_of(stated, left, range(planned)).found == found
