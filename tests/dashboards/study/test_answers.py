"""The head of a report answers what somebody asks who has seen nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dashboards.definitions.text import IN_SHORT, LABELS
from dashboards.study.answers import answers, scope
from dashboards.tables.derived import judged
from dashboards.tables.reading import StudyRun, read_study
from tests.dashboards.conftest import MakeStudy
from tests.dashboards.published import published, published_store


def entry(
    label: str,
    *,
    half_width: float,
    needed: int | None = None,
    metric: str = "knn/cls_top1",
    direction: str = "rises",
    tags: Sequence[str] = (),
) -> dict[str, Any]:
    return {
        "hypothesis": {
            "smallest_effect": 0.05, "alpha": 0.05, "metric": metric, "direction": direction,
        },
        "stated": {"word": "exploratory" if needed else "confirmatory"},
        "verdict": {
            "label": label,
            "tags": tags,
            "n": 8,
            "interval_equivalence": [-half_width, half_width],
            "p_equivalence": 0.001,
            "seeds_needed": needed,
        },
    }  # fmt: skip


def changing(study: StudyRun, *entries: dict[str, Any]) -> str:
    hypotheses = dict(zip("abcd", entries, strict=False))
    return answers(study, {"claims": {}, "hypotheses": hypotheses})["What would change it"]


def test_each_label_says_what_would_change_it(make_study: MakeStudy) -> None:
    entries = {
        "narrow": entry("inconclusive", half_width=0.01),
        "wide": entry("inconclusive", half_width=0.2, needed=68),
        "wider": entry("inconclusive", half_width=0.3, needed=99),
        "unmoved": entry("insensitive", half_width=0.01),
        "shown": entry("supported", half_width=0.01, tags=["strong"]),
        "gone": entry("failed", half_width=0.01),
    }
    said = answers(read_study(*make_study()), {"claims": {}, "hypotheses": entries})
    assert said["What would change it"] == (
        "1 failed: the runs that are missing, or arms that pass their gates. "
        "1 insensitive: a control that moves what is measured, or a smallest effect that is "
        "smaller; not more seeds. "
        "2 inconclusive: a new study of more seeds (up to 99 of them for 80 % power). "
        "1 inconclusive: a declared control that is known to differ. "
        "1 decided: other images, models or training; rarely other seeds. "
        "2 exploratory: a new study at other seeds, stated before there are results."
    )
    assert "means over 8 of 6 seeds" in said["How sure"]
    assert said["How sure"].endswith("so its p-value is no evidence.")


def test_seeds_beyond_the_most_that_are_planned_are_said(make_study: MakeStudy) -> None:
    study, wide = read_study(*make_study()), entry("inconclusive", half_width=0.2, needed=68)
    beyond = entry("inconclusive", half_width=0.9)
    assert "(some over 10,000 of them for 80 % power)" in changing(study, wide, beyond)
    # Of how runs end nothing is planned.
    ending = entry("inconclusive", half_width=0.9, metric="")
    assert "(up to 68 of them for 80 % power)" in changing(study, wide, ending)
    assert changing(study, ending) == "1 inconclusive: a new study of more seeds."


def test_what_rests_on_a_mean_alone_is_not_called_decided(make_study: MakeStudy) -> None:
    study = read_study(*make_study())
    weak = entry("supported", half_width=0.1)
    assert changing(study, weak).startswith("1 supported, but not strong (the mean ")
    for certain in (
        entry("supported", half_width=0.01, tags=["strong"]),
        entry("supported", half_width=0.01, direction="holds"),
        entry("refuted", half_width=0.01),
    ):
        said = changing(study, weak, certain)
        assert "1 decided: other images, " in said
        assert "1 supported, but not strong (" in said


def test_what_is_missing_is_said_beside_what_was_never_tried(make_study: MakeStudy) -> None:
    study = read_study(*make_study({("loss_on_patches", 1): "missing"}))
    said = answers(study, judged(study))
    assert said["What was not done"].startswith("17 of 18 runs finished; 1 missing. One data set (")
    for label in {one["verdict"]["label"] for one in judged(study)["hypotheses"].values()}:
        assert f"{label}: {IN_SHORT[label]}" in said["What came out"]


def test_claims_that_are_answered_are_named(make_study: MakeStudy) -> None:
    study, shown = read_study(*make_study()), entry("refuted", half_width=0.01)

    def came_out(**labels: str) -> str:
        claims = {name: {"verdict": {"label": label}} for name, label in labels.items()}
        return answers(study, {"claims": claims, "hypotheses": {"one": shown}})["What came out"]

    said = came_out(a="refuted", b="insensitive", c="refuted")
    assert said.startswith("3 claims: 2 refuted (a, c), 1 insensitive; none is supported.")
    assert came_out(a="supported").startswith("1 claim: 1 supported (a). 1 hypothesis: ")
    many = came_out(**dict.fromkeys("abcde", "refuted"))
    assert many.startswith("5 claims: 5 refuted; none is supported.")


def test_a_study_without_hypotheses_answers_what_it_can(make_study: MakeStudy) -> None:
    said = answers(read_study(*make_study()), {"claims": {}, "hypotheses": {}})
    assert list(said) == ["What was asked", "What came out", "What was not done"]
    assert said["What came out"] == "No hypotheses were declared."


def test_every_label_has_its_meaning_in_short() -> None:
    assert IN_SHORT.keys() == LABELS.keys()


def test_arms_of_several_lengths_are_said(tmp_path: Path) -> None:
    said = scope(published(published_store(tmp_path), "ladder"))
    assert "models of 140,688 to 226,091 parameters and 400 to 1,600 steps. Nothing" in said
