"""A claim that something crosses 0, as verdicts, figure, table and page show it."""

import numpy as np
import pytest
from scipy import stats

from dashboards.figures.crossings import crossing_claims, crossings
from dashboards.study.figures import every_figure, in_parts
from dashboards.study.report import report_page
from dashboards.study.tables import every_table
from dashboards.tables.derived import judged
from dashboards.tables.reading import read_study
from tests.dashboards.conftest import HYPOTHESES, SEEDS, Made, MakeStudy
from tests.registered import restated

METRIC = "knn/cls_top1"
RUNGS = {
    "small": (1.0, {"loss_on_patches": 1.0, "baseline": -1.0}),
    "middle": (2.0, {"cls_position_none": 1.0, "baseline": -1.0}),
    "large": (4.0, {"baseline": 1.0, "loss_on_patches": -1.0}),
}


def with_crossings(made: Made, count: int = 1) -> Made:
    """The study with so many claims that k-NN crosses 0 from one rung to the next."""
    ends = {
        f"turns:{level}": {
            **HYPOTHESES["loss_on_cls_makes_it_useful"],
            "contrast": RUNGS[level][1],
            "direction": direction,
            "family": f"turns:{level}",
        }
        for level, direction in (("small", "falls"), ("large", "rises"))
    }
    rungs = [
        {"level": level, "place": place, "contrast": contrast}
        for level, (place, contrast) in RUNGS.items()
    ]
    claim = {
        "text": "It turns.",
        "hypotheses": list(ends),
        "crossing": {
            "metric": METRIC,
            "contrast": RUNGS["small"][1],
            "alpha": 0.05,
            "rungs": rungs,
        },
    }

    def change(said):
        said["resolved"]["hypotheses"] |= ends
        said["resolved"]["claims"] = {"turns" * (i + 1): claim for i in range(count)}

    restated(made.registration, change)
    return made


def values(study):
    """Seeds × rungs, from the runs themselves."""
    return np.array(
        [
            [
                sum(w * study.runs[arm, seed].end[METRIC] for arm, w in contrast.items())
                for _, contrast in RUNGS.values()
            ]
            for seed in SEEDS
        ]
    )


def test_the_verdict_of_the_claim_says_where(make_study: MakeStudy):
    study = read_study(*with_crossings(make_study()))
    entry = judged(study)["claims"]["turns"]
    assert entry["verdict"]["label"] == "supported"
    assert entry["verdict"]["reason"].endswith(f"; {entry['crossed']['reason']}")
    assert "its mean crosses 0 at " in entry["crossed"]["reason"]
    assert entry["crossed"]["seeds"] == list(SEEDS)
    assert (
        pytest.approx(values(study))
        == np.array([one["values"] for one in entry["crossed"]["rungs"]]).T
    )


def test_the_figure_has_seeds_means_intervals_and_the_place(make_study: MakeStudy):
    study = read_study(*with_crossings(make_study()))
    verdicts = judged(study)
    figure = crossings(verdicts)
    seeds, mean, crossing = figure.data
    title = figure.layout.yaxis.title.text.replace("<br>", "")
    assert title == "loss_on_patches − baseline:knn/cls_top1 (share)"
    expected = values(study)
    assert [y for y in seeds.y if y is not None] == pytest.approx(expected.ravel())
    assert mean.y == pytest.approx(expected.mean(axis=0))
    low, high = stats.t.interval(0.95, len(SEEDS) - 1, expected.mean(axis=0), stats.sem(expected))
    assert mean.error_y.array == pytest.approx((high - low) / 2)
    found = verdicts["claims"]["turns"]["crossed"]["found"]
    assert list(crossing.x) == found["at"]
    assert [(one.x0, one.x1) for one in figure.layout.shapes if one.type == "rect"] == [
        tuple(ends) for ends in found["within"]
    ]


def test_page_and_table_have_it(make_study: MakeStudy):
    study = read_study(*with_crossings(make_study()))
    verdicts = judged(study)
    figures = every_figure(study, verdicts)
    page = report_page(study, verdicts, figures).decode()
    assert "Where the sign changes" in page
    assert verdicts["claims"]["turns"]["crossed"]["reason"] in page
    table = every_table(study, verdicts)["crossings"]
    assert len(table.rows) == len(SEEDS) * len(RUNGS)
    assert table.rows[0][:4] == ["turns", "small", 1.0, 0]
    assert table.rows[0][4] == pytest.approx(values(study)[0, 0])


def test_five_claims_take_two_pages(make_study: MakeStudy):
    study = read_study(*with_crossings(make_study(), 5))
    verdicts = judged(study)
    assert len(crossing_claims(verdicts)) == 5
    parts = in_parts(study, verdicts, {"crossings": crossings(verdicts)})["crossings"]
    assert [len(part.data) for part in parts] == [12, 3]


def test_a_missing_run_leaves_a_gap_and_no_place(make_study: MakeStudy):
    made = with_crossings(make_study({("cls_position_none", 2): "missing"}))
    verdicts = judged(read_study(*made))
    entry = verdicts["claims"]["turns"]
    assert entry["crossed"]["found"] is None
    assert (
        "cannot be said: cls_position_none: missing (not started), seed 2"
        in entry["verdict"]["reason"]
    )
    seeds, mean, crossing = crossings(verdicts).data
    assert list(seeds.y).count(None) == len(SEEDS) + 1
    assert len(crossing.x) == 0
    assert mean.y[1] is not None


def test_a_study_without_such_claims_has_no_such_figure(make_study: MakeStudy):
    study = read_study(*make_study())
    verdicts = judged(study)
    assert "crossings" not in every_figure(study, verdicts)
    assert "crossings" not in every_table(study, verdicts)
    assert crossings(verdicts).layout.annotations[0].text == "No claim is of a crossing."
