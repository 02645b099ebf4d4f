"""Figures hold what they say, and look the same for the same arm."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from dashboards.figures.boundary import boundary
from dashboards.figures.curves import _spread, collapse_panel, learning_curves
from dashboards.figures.forest import verdict_intervals
from dashboards.figures.layers import globality_by_layer
from dashboards.figures.seeds import paired_seeds
from dashboards.figures.style import (
    BASELINE_COLOUR,
    LABEL_COLOURS,
    PALETTE,
    arm_styles,
    metric_title,
)
from dashboards.study.figures import every_figure
from dashboards.tables.derived import judged
from dashboards.tables.reading import StudyRun, read_study
from tests.dashboards.conftest import MakeStudy


@pytest.fixture
def study(make_study: MakeStudy) -> StudyRun:
    return read_study(*make_study({("loss_on_patches", 1): "collapsed"}))


@pytest.fixture
def verdicts(study: StudyRun) -> Mapping[str, Any]:
    return judged(study)


def trace(figure: go.Figure, name: str) -> Any:
    [found] = [trace for trace in figure.data if trace.name == name]
    return found


def texts(figure: go.Figure) -> list[str]:
    return [annotation.text for annotation in figure.layout.annotations]


@pytest.mark.slow
def test_figures_have_as_many_traces_as_stated(
    study: StudyRun, verdicts: Mapping[str, Any]
) -> None:
    arms, hypotheses, collapse = 3, 3, 3
    assert len(verdict_intervals(verdicts).data) == 4 * hypotheses
    assert len(paired_seeds(study, verdicts).data) == 3 * hypotheses
    assert len(learning_curves(study).data) == 2 * (2 * arms + 1)
    assert len(globality_by_layer(study).data) == 4 * arms
    assert len(collapse_panel(study).data) == collapse * (2 * arms + 1)


def test_each_panel_of_a_hypothesis_says_when_it_was_stated(
    study: StudyRun, verdicts: Mapping[str, Any]
) -> None:
    entries = verdicts["hypotheses"]
    titles = {f"{name} ({entry['stated']['word']})" for name, entry in entries.items()}
    for figure in (boundary(verdicts), paired_seeds(study, verdicts)):
        assert titles <= {text.replace("<br>", " ") for text in texts(figure)}


def test_forest_counts_in_smallest_effects(verdicts: Mapping[str, Any]) -> None:
    figure = verdict_intervals(verdicts)
    name = "cls_needs_no_position"
    verdict = verdicts["hypotheses"][name]["verdict"]
    assert trace(figure, f"{name}: mean").x == (verdict["mean"] / 0.02,)
    assert trace(figure, f"{name}: interval").x == tuple(x / 0.02 for x in verdict["interval"])
    assert len(trace(figure, f"{name}: seeds").x) == 6
    assert f"<b>{verdict['label']}</b>, confirmatory" in texts(figure)


@pytest.mark.slow
def test_forest_says_when_its_axis_is_compressed(verdicts: Mapping[str, Any]) -> None:
    assert "compressed" not in verdict_intervals(verdicts).layout.xaxis.title.text
    entry = verdicts["hypotheses"]["loss_on_cls_makes_it_useful"]
    entry["hypothesis"]["smallest_effect"] = 0.001
    figure = verdict_intervals(verdicts)
    assert "compressed" in figure.layout.xaxis.title.text
    assert {"−1", "0", "1", "100"} <= set(figure.layout.xaxis.ticktext)


def test_seed_of_a_collapsed_run_is_a_cross(study: StudyRun, verdicts: Mapping[str, Any]) -> None:
    points = trace(paired_seeds(study, verdicts), "loss_on_cls_makes_it_useful: loss_on_patches")
    assert points.marker.symbol.count("x") == 1
    assert points.marker.symbol.index("x") == 1


def test_thick_curve_is_the_mean_of_finished_seeds(study: StudyRun) -> None:
    figure = learning_curves(study)
    mean = next(t for t in figure.data if t.name == "loss_on_patches: mean")
    finished = [study.runs["loss_on_patches", seed].end["knn/cls_top1"] for seed in (0, 2, 3, 4, 5)]
    assert mean.x == (0, 300, 600)
    assert mean.y[-1] == pytest.approx(sum(finished) / 5)


def test_globality_is_a_mean_over_heads_and_seeds(study: StudyRun) -> None:
    line = trace(globality_by_layer(study), "baseline: patch, end")
    values = [
        study.runs["baseline", seed].end[f"globality/patch/gyration@3.{head}"]
        for seed in range(6)
        for head in range(3)
    ]
    assert line.x == (1, 2, 3)
    assert line.y[2] == pytest.approx(sum(values) / 18)


@pytest.mark.slow
def test_an_arm_has_one_colour_everywhere(study: StudyRun, verdicts: Mapping[str, Any]) -> None:
    colour = arm_styles(study.arms)["loss_on_patches"].colour
    assert trace(globality_by_layer(study), "loss_on_patches: [CLS], end").line.color == colour
    pairs = paired_seeds(study, verdicts)
    assert trace(pairs, "loss_on_cls_makes_it_local: loss_on_patches").marker.color == colour
    means = [t for t in learning_curves(study).data if t.name == "loss_on_patches: mean"]
    assert {t.line.color for t in means} == {colour}


COLOUR_BLIND = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
}
"""What linear light becomes for whom, after Machado et al. (2009), severity 1."""


@pytest.mark.parametrize("who", COLOUR_BLIND)
@pytest.mark.parametrize("colours", [(BASELINE_COLOUR, *PALETTE), tuple(LABEL_COLOURS.values())])
def test_colours_are_told_apart(who: str, colours: tuple[str, ...]) -> None:
    found = np.array([list(bytes.fromhex(colour[1:])) for colour in colours]) / 255
    light = np.where(found <= 0.04045, found / 12.92, ((found + 0.055) / 1.055) ** 2.4)
    seen = np.clip(light @ np.array(COLOUR_BLIND[who]).T, 0, 1)
    shown = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    for one, other in itertools.combinations(rgb2lab(shown), 2):
        # A difference of 10 is plain at a glance.
        assert deltaE_ciede2000(one, other) > 10


def test_arms_beyond_the_palette_still_differ() -> None:
    styles = arm_styles([f"arm_{number}" for number in range(3 * len(PALETTE))])
    assert len(set(styles.values())) == 3 * len(PALETTE) + 1


@pytest.mark.slow
def test_every_axis_that_shows_has_a_title(study: StudyRun, verdicts: Mapping[str, Any]) -> None:
    for name in ("verdict_intervals", "learning_curves", "collapse_panel"):
        figure = every_figure(study, verdicts)[name]
        *_, last = figure.select_xaxes()
        assert last.title.text
        assert all(axis.title.text for axis in figure.select_yaxes() if axis.visible is not False)
    assert metric_title("knn/cls_top1") == "knn/cls_top1 (share)"
    assert metric_title("globality/cls/gyration", minus_start=True).endswith("minus step 0")


@pytest.mark.slow
def test_names_are_escaped_for_plotly(make_study: MakeStudy) -> None:
    hypothesis = {
        "metric": "knn/cls_top1",
        "contrast": ["loss_on_patches", "baseline"],
        "direction": "falls",
        "smallest_effect": 0.05,
    }
    study = read_study(*make_study(hypotheses={"<a href='x'>": hypothesis}))
    for figure in every_figure(study, judged(study)).values():
        assert not any("<a" in text for text in texts(figure))


def test_labels_keep_their_distance_and_stay_inside() -> None:
    moved = _spread({"a": 0.0, "b": 0.01, "c": 0.02, "d": 0.9}, 0.1, low=0.0, high=1.0)
    heights = sorted(moved.values())
    assert all(b - a >= 0.1 - 1e-12 for a, b in itertools.pairwise(heights))
    assert heights[0] >= 0
    assert moved["d"] == 0.9


@pytest.mark.slow
def test_figures_without_any_value_say_so(make_study: MakeStudy) -> None:
    study = read_study(*make_study(otherwise="missing"))
    figures = every_figure(study, judged(study))
    assert "no finished pair" in texts(figures["verdict_intervals"])
    assert "no pair of values" in texts(figures["paired_seeds"])
    assert "knn/cls_top1 was not measured yet" in texts(figures["learning_curves"])
    assert "Globality by layer was not measured yet." in texts(figures["globality_by_layer"])
    assert "Collapse diagnostics were not measured yet." in texts(figures["collapse_panel"])


def test_values_of_one_arm_stand_over_zero_and_no_line_strikes_words(
    make_study: MakeStudy,
) -> None:
    alone = {"contrast": ["baseline"], "direction": "rises", "smallest_effect": 0.01}
    study = read_study(
        *make_study(
            hypotheses={
                "measured": {**alone, "metric": "knn/cls_top1"},
                "unmeasured": {**alone, "metric": "gap/nothing"},
            }
        )
    )
    figure = paired_seeds(study, judged(study))
    assert [shape.yref for shape in figure.layout.shapes] == ["y"]
    [words] = [one for one in figure.layout.annotations if one.text == "no pair of values"]
    assert words.yref == "y2 domain"


def test_figures_without_hypotheses_say_so(make_study: MakeStudy) -> None:
    study = read_study(*make_study(hypotheses={}))
    figures = every_figure(study, judged(study))
    assert texts(figures["verdict_intervals"]) == ["No hypotheses were declared."]
