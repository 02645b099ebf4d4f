"""How much of the error is the choice of held-out images, from values of each image of each run."""

import dataclasses

import numpy as np
import pytest

from ablations.spec import Hypothesis
from ablations.statistics.crossed import crossed_error
from ablations.verdicts.evidence import Run
from ablations.verdicts.images import image_error, measured_by_image
from ablations.verdicts.judge import judge
from trainers.runs.by_image import ByImage

SEEDS = range(8)
IMAGES = 30
COMPARED = Hypothesis(metric="g/m", contrast=("a", "b"), direction="rises", smallest_effect=0.1)


def drawn(scale_of_images=1.0):
    """Values float32 [arms, seeds, images] in which an image differs alike at every seed."""
    rng = np.random.default_rng(0)
    of_images = scale_of_images * rng.standard_normal((2, 1, IMAGES))
    return (of_images + rng.standard_normal((2, 8, IMAGES))).astype(np.float32)


def runs_of(values, names=None):
    names = np.arange(IMAGES) if names is None else names
    return {
        (arm, seed): Run(
            status="finished",
            start={},
            end={"g/m": float(of_run.astype(float).mean())},
            by_image=ByImage(images=names, values={"g/m": of_run}),
        )
        for arm, of_arm in zip("ab", values, strict=True)
        for seed, of_run in enumerate(of_arm)
    }


def test_differences_are_of_the_same_seed_on_the_same_image():
    values = drawn()
    found = image_error(COMPARED, runs_of(values), SEEDS)
    expected = crossed_error(values[0].astype(float) - values[1], 0.05)
    assert found["images"] == IMAGES
    assert found["share"] == pytest.approx(expected.share)
    assert found["interval"] == pytest.approx(expected.interval)


def test_a_value_that_is_no_number_is_no_measurement():
    values = drawn()
    values[0, 3, 5] = np.nan
    assert image_error(COMPARED, runs_of(values), SEEDS) is None


def test_with_nothing_in_common_on_an_image_the_interval_is_that_of_the_verdict():
    # An image and its opposite: every image has the same mean over seeds.
    values = np.zeros((2, 8, IMAGES), dtype=np.float32)
    values[0] = np.arange(8)[:, None] + np.where(np.indices((8, IMAGES)).sum(0) % 2, 1, -1)
    runs = runs_of(values)
    found = image_error(COMPARED, runs, SEEDS)
    verdict = judge({"h": COMPARED}, {}, runs, SEEDS)["h"]
    assert found["share"] == 0
    assert found["interval"] == pytest.approx(verdict.interval)


def test_images_that_differ_alike_at_every_seed_widen_the_interval():
    runs = runs_of(drawn(scale_of_images=3.0))
    found = image_error(COMPARED, runs, SEEDS)
    low, high = judge({"h": COMPARED}, {}, runs, SEEDS)["h"].interval
    assert found["share"] > 0.8
    assert found["interval"][1] - found["interval"][0] > 2 * (high - low)


def test_the_order_of_images_does_not_matter_and_other_images_are_not_compared():
    values, order = drawn(), np.random.default_rng(1).permutation(IMAGES)
    found = image_error(COMPARED, runs_of(values), SEEDS)
    again = image_error(COMPARED, runs_of(values[:, :, order], order), SEEDS)
    assert again["share"] == pytest.approx(found["share"])
    assert again["interval"] == pytest.approx(found["interval"])
    runs = runs_of(values)
    runs["b", 3] = runs_of(values, names=order)["b", 3]
    assert image_error(COMPARED, runs, SEEDS) is None


def test_the_label_stays_with_the_seeds():
    runs = runs_of(drawn(scale_of_images=3.0))
    without = {place: dataclasses.replace(run, by_image=None) for place, run in runs.items()}
    assert judge({"h": COMPARED}, {}, runs, SEEDS) == judge({"h": COMPARED}, {}, without, SEEDS)


def test_the_interval_has_the_level_of_the_one_that_decides():
    values = drawn()
    holds = COMPARED.model_copy(update={"direction": "holds"})
    expected = crossed_error(values[0].astype(float) - values[1], 0.1)
    assert image_error(holds, runs_of(values), SEEDS)["interval"] == pytest.approx(
        expected.interval
    )
    found = image_error(COMPARED, runs_of(values), SEEDS, at_looks=True)
    assert found["interval"] is None
    assert found["share"] is not None


def test_weights_and_metrics_are_those_of_the_contrast():
    values = drawn()
    runs = runs_of(values)
    alone = COMPARED.model_copy(update={"contrast": ("a",)})
    expected = crossed_error(values[0].astype(float), 0.05)
    assert image_error(alone, runs, SEEDS)["interval"] == pytest.approx(expected.interval)
    weighed = COMPARED.model_copy(update={"contrast": {"a": 0.5, "b": -2.0}})
    expected = crossed_error(0.5 * values[0].astype(float) - 2.0 * values[1], 0.05)
    assert image_error(weighed, runs, SEEDS)["interval"] == pytest.approx(expected.interval)


@pytest.mark.parametrize(
    "change",
    [{"metric": "", "endpoint": "collapsed"}, {"metric": "g/other"}],
)
def test_what_no_image_has_a_value_of_is_not_measured(change):
    hypothesis = COMPARED.model_copy(update=change)
    assert image_error(hypothesis, runs_of(drawn()), SEEDS) is None
    assert measured_by_image({"h": hypothesis}) == {"g/other"} & {change.get("metric")}


SINCE_START = COMPARED.model_copy(update={"minus_start": True})


def since_start(ends, starts, names=None, names_at_start=None):
    """Runs that have values of each image at both steps."""
    at_start = runs_of(starts, names if names_at_start is None else names_at_start)
    return {
        place: dataclasses.replace(run, by_image_at_start=at_start[place].by_image)
        for place, run in runs_of(ends, names).items()
    }


def test_a_change_since_the_start_is_that_of_the_same_image():
    ends = np.array([[[5, 7, 6], [4, 9, 8]], [[1, 2, 0], [3, 1, 1]]], np.float32)
    starts = np.array([[[1, 2, 3], [0, 2, 1]], [[0, 2, 1], [1, 0, 2]]], np.float32)
    # (5 - 1) - (1 - 0), (7 - 2) - (2 - 2), (6 - 3) - (0 - 1); and at the other seed.
    by_hand = np.array([[3, 5, 4], [2, 6, 8]], float)
    found = image_error(SINCE_START, since_start(ends, starts, np.arange(3)), range(2))
    expected = crossed_error(by_hand, 0.05)
    assert found["images"] == 3
    assert found["share"] == pytest.approx(expected.share)
    assert found["interval"] == pytest.approx(expected.interval)


def test_what_an_image_has_at_the_start_too_is_no_error_of_a_change():
    of_images = 3 * np.random.default_rng(1).standard_normal((2, 1, IMAGES))
    starts = np.broadcast_to(of_images, (2, 8, IMAGES)).astype(np.float32)
    runs = since_start(starts + drawn(scale_of_images=0), starts)
    # Images that differ between the arms from the start on are most of the error at the end.
    assert image_error(COMPARED, runs, SEEDS)["share"] > 0.8
    expected = image_error(COMPARED, runs_of(drawn(scale_of_images=0)), SEEDS)
    found = image_error(SINCE_START, runs, SEEDS)
    assert found["share"] == pytest.approx(expected["share"], abs=1e-4)
    assert found["interval"] == pytest.approx(expected["interval"], abs=1e-4)


def test_a_change_of_which_one_step_is_not_known_is_not_measured():
    assert image_error(SINCE_START, runs_of(drawn()), SEEDS) is None
    shuffled = np.random.default_rng(1).permutation(IMAGES)
    others = since_start(drawn(), drawn(), names_at_start=shuffled)
    assert image_error(SINCE_START, others, SEEDS) is None
    runs = since_start(drawn(), drawn())
    runs["b", 5] = dataclasses.replace(runs["b", 5], by_image=None)
    assert image_error(SINCE_START, runs, SEEDS) is None


def test_step_0_is_read_for_changes_alone():
    stated = {"now": COMPARED, "since": SINCE_START.model_copy(update={"metric": "g/since"})}
    assert measured_by_image(stated) == {"g/m", "g/since"}
    assert measured_by_image(stated, at_start=True) == {"g/since"}


def test_a_run_without_values_of_images_leaves_nothing_to_say():
    for lost in (None, Run(status="failed", start={}, end={})):
        runs = runs_of(drawn())
        runs["a", 2] = lost or dataclasses.replace(runs["a", 2], by_image=None)
        assert image_error(COMPARED, runs, SEEDS) is None
    assert image_error(COMPARED, runs_of(drawn()), [0]) is None
