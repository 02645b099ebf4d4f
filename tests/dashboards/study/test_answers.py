"""The head of a report answers what somebody asks who has seen nothing else."""

from typing import Any

from dashboards.definitions.text import IN_SHORT, LABELS
from dashboards.study.answers import answers
from dashboards.tables.derived import judged
from dashboards.tables.reading import read_study
from tests.dashboards.conftest import MakeStudy


def entry(label: str, *, half_width: float, needed: int | None = None) -> dict[str, Any]:
    return {
        "hypothesis": {"smallest_effect": 0.05, "alpha": 0.05},
        "stated": {"word": "exploratory" if needed else "confirmatory"},
        "verdict": {
            "label": label,
            "n": 8,
            "interval_equivalence": [-half_width, half_width],
            "p_equivalence": 0.001,
            "seeds_needed": needed,
        },
    }


def test_each_label_says_what_would_change_it(make_study: MakeStudy) -> None:
    entries = {
        "narrow": entry("inconclusive", half_width=0.01),
        "wide": entry("inconclusive", half_width=0.2, needed=68),
        "wider": entry("inconclusive", half_width=0.3, needed=99),
        "unmoved": entry("insensitive", half_width=0.01),
        "shown": entry("supported", half_width=0.01),
        "gone": entry("failed", half_width=0.01),
    }
    said = answers(read_study(*make_study()), {"claims": {}, "hypotheses": entries})
    assert said["What would change it"] == (
        "1 failed: the runs that are missing, or arms that pass their gates. "
        "1 insensitive: a control that moves the end point, or a smaller smallest effect; "
        "not more seeds. 2 inconclusive: more seeds, 99 at most. "
        "1 inconclusive: a declared control that is known to differ. "
        "1 decided: only a study of other images, models or training. "
        "2 exploratory: the same, stated before there are results, at other seeds."
    )
    assert "means over 8 of 6 seeds" in said["How sure"]
    assert said["How sure"].endswith("so its p-value is no evidence.")


def test_what_is_missing_is_said_beside_what_was_never_tried(make_study: MakeStudy) -> None:
    study = read_study(*make_study({("loss_on_patches", 1): "missing"}))
    said = answers(study, judged(study))
    assert said["What was not done"].startswith("17 of 18 runs finished; 1 missing. One data set (")
    for label in {one["verdict"]["label"] for one in judged(study)["hypotheses"].values()}:
        assert f"{label}: {IN_SHORT[label]}" in said["What came out"]


def test_a_study_without_hypotheses_answers_what_it_can(make_study: MakeStudy) -> None:
    said = answers(read_study(*make_study()), {"claims": {}, "hypotheses": {}})
    assert list(said) == ["What was asked", "What came out", "What was not done"]
    assert said["What came out"] == "No hypotheses were declared."


def test_every_label_has_its_meaning_in_short() -> None:
    assert IN_SHORT.keys() == LABELS.keys()
