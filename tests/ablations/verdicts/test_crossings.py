"""A contrast along an ordered factor: how it changes, and where its sign does."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ablations.crossing import trend_weights
from ablations.hypothesis import Claim, Hypothesis
from ablations.statistics.crossover import crossover
from ablations.study.families import WHOLE_STUDY
from ablations.study.lint import lint
from ablations.study.loading import load_study
from ablations.verdicts.claims import judge_claims
from ablations.verdicts.crossings import crossed
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import judge
from ablations.verdicts.looks import follow, told_apart
from trainers.errors import StudyError

METRIC = "globality/contrast/gyration"

STUDY = """
name: ladder
recipe: digits_tiny
seeds: 8
arms: [registers_4]
factorial:
  - [baseline, {shallow: {model.depth: 2}}, {deep: {model.depth: 6}}]
  - [baseline, loss_on_patches, cls_position_none]
hypotheses:
  h: {metric: globality/contrast/gyration, smallest_effect: 0.5, %s}
%s
"""

ALONG = "along: {shallow: 1, baseline: 3, deep: 6}"


def loaded(tmp_path: Path, text: str, more: str = ""):
    path = tmp_path / "study.yaml"
    path.write_text(STUDY % (text, more))
    return load_study(path)


def drawn(study, mean_of):
    """Runs whose values are those of their cell on average, with noise."""
    rng = np.random.default_rng(0)
    runs = {}
    for arm in study.arms:
        noise = rng.standard_normal(len(study.seeds))
        values = mean_of(arm.split("+")) + 0.2 * (noise - noise.mean())
        for seed, value in zip(study.seeds, values, strict=True):
            runs[arm, seed] = Run(status="finished", start={METRIC: 7.0}, end={METRIC: value})
    return runs


def test_what_changes_along_a_factor_is_a_slope_times_its_length(tmp_path: Path):
    text = f"{ALONG}, direction: rises, contrast: [loss_on_patches, baseline]"
    hypothesis = loaded(tmp_path, text).hypotheses["h"]
    places = np.array([1.0, 3.0, 6.0])
    values = np.array([0.3, -0.2, 4.0])
    slope = np.polyfit(places, values, 1)[0]
    of = {"shallow": values[0], "baseline": values[1], "deep": values[2]}
    found = sum(
        weight * next((of[level] for level in of if level in arm.split("+")), of["baseline"])
        for arm, weight in hypothesis.weights.items()
        if "loss_on_patches" in arm
    )
    assert found == pytest.approx(slope * 5)
    assert sum(hypothesis.weights.values()) == pytest.approx(0.0)
    assert hypothesis.sides == (
        "deep+loss_on_patches − deep",
        "the same at shallow, on the line through shallow, baseline, deep",
    )
    assert Hypothesis.model_validate_json(hypothesis.model_dump_json()) == hypothesis


def test_the_middle_of_even_steps_has_no_weight():
    assert trend_weights({"a": 0.1, "b": 0.2, "c": 0.3}) == pytest.approx(
        {"a": -1.0, "b": 0.0, "c": 1.0}
    )
    assert trend_weights({"a": 0.1, "b": 0.2, "c": 0.3})["b"] == 0.0
    assert trend_weights({"a": 1.0, "b": 4.0}) == {"a": -1.0, "b": 1.0}


def test_between_two_levels_it_is_their_difference(tmp_path: Path):
    text = "along: {deep: -6, baseline: -3}, direction: falls, contrast: [loss_on_patches], "
    hypothesis = loaded(tmp_path, f"{text} control: cls_position_none").hypotheses["h"]
    assert hypothesis.weights == {"loss_on_patches": 1.0, "deep+loss_on_patches": -1.0}
    assert hypothesis.control_weights == {"cls_position_none": 1.0, "deep+cls_position_none": -1.0}
    assert hypothesis.sides == ("loss_on_patches", "the same at deep")


def test_what_crosses_is_a_claim_of_two_hypotheses(tmp_path: Path):
    text = f"{ALONG}, direction: crosses, contrast: [loss_on_patches, baseline], claim: It turns."
    study = loaded(tmp_path, f"{text}, control: cls_position_none, alpha: 0.1")
    first, last = study.hypotheses["h:shallow"], study.hypotheses["h:deep"]
    assert (first.direction, last.direction) == ("falls", "rises")
    assert first.weights == {"shallow+loss_on_patches": 1.0, "shallow": -1.0}
    assert last.weights == {"deep+loss_on_patches": 1.0, "deep": -1.0}
    assert first.control_weights == {"shallow+cls_position_none": 1.0}
    # The place rests on all rungs, so whoever knew the middle one knew of it.
    assert {"baseline", "loss_on_patches", "deep", "shallow"} <= {*first.arms} & {*last.arms}
    assert (first.family, last.family) == ("h:shallow", "h:deep")
    assert not any("families" in line for line in lint(study))
    whole = loaded(tmp_path, f"{text}", "multiplicity: {over: study}")
    assert {one.family for one in whole.hypotheses.values()} == {WHOLE_STUDY}
    claim = study.claims["h"]
    assert (claim.text, claim.hypotheses, claim.rule) == ("It turns.", (*study.hypotheses,), "all")
    assert claim.crossing is not None
    assert [(one.level, one.place) for one in claim.crossing.rungs] == [
        ("shallow", 1.0), ("baseline", 3.0), ("deep", 6.0)
    ]  # fmt: skip
    assert claim.crossing.alpha == 0.1
    assert Claim.model_validate_json(json.dumps(claim.model_dump(mode="json"))) == claim


def test_a_planted_crossing_is_found_where_it_is(tmp_path: Path):
    study = loaded(tmp_path, f"{ALONG}, direction: crosses, contrast: [loss_on_patches, baseline]")
    means = {"shallow": -1.0, "deep": 2.0}

    def turned(levels):
        place = next((means[one] for one in levels if one in means), -0.5)
        # What all arms share at a rung is no part of the contrast.
        return 10 * place + place * ("loss_on_patches" in levels)

    runs = drawn(study, turned)
    verdicts = judge(study.hypotheses, {}, runs, study.seeds)
    labels = {name: one.label for name, one in verdicts.items()}
    assert judge_claims(study.claims, study.hypotheses, labels)["h"].label == "supported"
    crossing = study.claims["h"].crossing
    found = crossed(crossing, runs, study.seeds)
    values = [list(rung[2]) for rung in found.rungs]
    assert found.found == crossover(np.array(values).T, [1, 3, 6])
    # From -0.5 at 3 to 2 at 6.
    assert found.found.at == (pytest.approx(3.6),)
    assert found.found.within[0][0] < 3.6 < found.found.within[0][1]
    said = r"its mean crosses 0 at 3\.\d+, 95 % interval [34]\.\d+ to [34]\.\d+"
    assert re.fullmatch(said, found.reason)
    assert json.loads(json.dumps(found.to_json()))["rungs"][0]["level"] == "shallow"
    wider = crossed(crossing, runs, study.seeds, looks=3)
    assert wider.level == pytest.approx(1 - 0.05 / 3)
    (low, high), (least, most) = found.found.within[0], wider.found.within[0]
    assert least < low < high < most


def test_a_control_along_a_factor_is_compared_with_what_the_hypothesis_is(tmp_path: Path):
    text = f"{ALONG}, direction: holds, contrast: [loss_on_patches, baseline]"
    named = loaded(tmp_path, f"{text}, control: cls_position_none").hypotheses["h"]
    both = loaded(tmp_path, f"{text}, control: [cls_position_none, baseline]").hypotheses["h"]
    assert named.control_weights == pytest.approx(both.control_weights)
    # All arms rise along the factor, and no arm does anything.
    study = loaded(tmp_path, f"{text}, control: cls_position_none")
    runs = drawn(study, lambda levels: 5.0 * ("deep" in levels) - 2.0 * ("shallow" in levels))
    assert judge(study.hypotheses, {}, runs, study.seeds)["h"].label == "insensitive"


def test_signs_are_said(tmp_path: Path):
    turned = loaded(tmp_path, f"{ALONG}, direction: crosses, contrast: {{baseline: -1}}")
    assert turned.hypotheses["h:deep"].sides == ("−deep", "")
    assert turned.claims["h"].text == f"−baseline, {METRIC}: crosses 0 from shallow to deep."
    assert any("h:shallow" in line and "a value against 0" in line for line in lint(turned))
    text = "{loss_on_patches: 1, cls_position_none: -0.5, baseline: -0.5}"
    three = loaded(tmp_path, f"{ALONG}, direction: rises, contrast: {text}").hypotheses["h"]
    said = "deep+loss_on_patches − (0.5 deep+cls_position_none + 0.5 deep)"
    assert three.sides[0] == said


def test_every_rung_runs_until_a_look_has_decided(tmp_path: Path):
    text = f"{ALONG}, direction: crosses, contrast: [loss_on_patches, baseline]"
    study = loaded(tmp_path, text, "looks: [7, 8]\nspending: pocock")
    open_runs, decided_runs = (
        drawn(study, lambda levels, s=size: s * ("loss_on_patches" in levels) * ("deep" in levels))
        for size in (0.3, 5.0)
    )
    # At seven seeds, of eight: less than the smallest effect, and ten times that.
    for runs, is_decided in ((open_runs, False), (decided_runs, True)):
        some = {place: run for place, run in runs.items() if place[1] < 7}
        found = follow(study.hypotheses, {}, some, study.seeds, study.design)
        assert found["h:deep"].is_decided == is_decided
        assert {"loss_on_patches", "baseline"} <= {*study.hypotheses["h:deep"].arms}
        missing = {(arm, 7): Run(status="missing", start={}, end={}) for arm in study.arms}
        told = told_apart(
            study.hypotheses, {}, some | missing, list(study.arms), study.seeds, study.design
        )
        assert (told["loss_on_patches", 7].status == "skipped") == is_decided


def test_what_keeps_its_sign_is_refuted_and_crosses_nowhere(tmp_path: Path):
    study = loaded(tmp_path, f"{ALONG}, direction: crosses, contrast: [loss_on_patches, baseline]")
    runs = drawn(study, lambda levels: 2.0 * ("loss_on_patches" in levels))
    labels = {
        name: one.label for name, one in judge(study.hypotheses, {}, runs, study.seeds).items()
    }
    assert labels == {"h:shallow": "refuted", "h:deep": "supported"}
    assert judge_claims(study.claims, study.hypotheses, labels)["h"].label == "refuted"
    found = crossed(study.claims["h"].crossing, runs, study.seeds)
    assert found.reason == "it has one sign from 1 to 6"


def test_a_rung_without_a_number_or_that_did_not_learn_is_said(tmp_path: Path):
    study = loaded(
        tmp_path, f"{ALONG}, direction: crosses, contrast: [baseline], minus_start: true"
    )
    crossing = study.claims["h"].crossing
    runs = drawn(study, lambda levels: 6.0 + 2 * ("deep" in levels))
    assert "crosses 0 at" in crossed(crossing, runs, study.seeds).reason
    unlearnt = crossed(crossing, runs, study.seeds, missed={"baseline": ["gate learns missed"]})
    assert unlearnt.found is None
    assert unlearnt.reason == "where it crosses 0 cannot be said: gate learns missed"
    del runs["baseline", 3]
    missing = crossed(crossing, runs, study.seeds)
    assert missing.found is None
    assert missing.reason == "where it crosses 0 cannot be said: baseline: missing, seed 3"
    assert missing.rungs[1][2][3] is None
    assert "one seed has no interval" in crossed(crossing, runs, study.seeds[:1]).reason


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        (f"{ALONG}, direction: rises, contrast: [registers_4]", "", "registers_4 is no cell at"),
        (f"{ALONG}, direction: rises, contrast: [deep]", "", "deep is no cell at the baseline of"),
        (f"{ALONG}, direction: rises, contrast: [what]", "", "no arm 'what' in this study"),
        (
            "along: {shallow: 1, loss_on_patches: 2}, direction: rises, contrast: [baseline]",
            "",
            "no factor of the factorial has the levels shallow, loss_on_patches",
        ),
        ("along: {deep: 1}, direction: rises, contrast: [baseline]", "", "along needs 2 levels"),
        (
            "along: {shallow: 3, deep: 3}, direction: crosses, contrast: [baseline]",
            "",
            "along must give its levels numbers that ascend",
        ),
        ("along: [shallow, deep], direction: crosses, contrast: [baseline]", "", "h.along"),
        ("along: 5, direction: crosses, contrast: [baseline]", "", "h.along"),
        (
            "along: {shallow: low, deep: 3}, direction: crosses, contrast: [deep]",
            "",
            "along.shallow",
        ),
        (
            "along: {shallow: true, deep: 3}, direction: rises, contrast: [deep]",
            "",
            "along.shallow",
        ),
        ("along: {shallow: .nan, deep: 3}, direction: rises", "", "along.shallow"),
        (
            f"{ALONG}, direction: crosses, contrast: [baseline]",
            "claims: {c: {text: x, hypotheses: h}, d: {text: x, hypotheses: 5}}",
            "claims.c.hypotheses",
        ),
        ("direction: crosses, contrast: [baseline]", "", "crosses needs along: levels of one"),
        (
            f"{ALONG}, direction: rises, contrast: [deep, baseline], over: cells",
            "",
            "along goes with a metric and a contrast of arms",
        ),
        (
            f"{ALONG}, direction: crosses, contrast: [baseline]",
            "claims: {h: {text: x, hypotheses: [h]}}",
            "claim h: is the name of a hypothesis that crosses, too",
        ),
        (
            f"{ALONG}, direction: crosses, contrast: [baseline]",
            "claims: {c: {text: x, hypotheses: [h]}}",
            "claim c: hypothesis h crosses, which is a claim of its own; leave it out",
        ),
        (
            f"{ALONG}, direction: crosses, contrast: [baseline]",
            '  "h:deep": {metric: loss/total, direction: falls, smallest_effect: 1, '
            "contrast: [deep]}",
            "hypothesis h:deep: is what h, which crosses, is made of",
        ),
        (
            f"{ALONG}, direction: crosses, contrast: [baseline]",
            "claims: {'h:deep': {text: x, hypotheses: [h]}}",
            "claim h:deep: is what h, which crosses, is made of",
        ),
        (
            "along: {shallow: 0, deep: 1.0e-300, baseline: 1}, direction: rises, "
            "contrast: [baseline]",
            "",
            "has levels whose numbers are as good as the same",
        ),
        (
            "along: {shallow: -1.0e+308, deep: 1.0e+308}, direction: rises, contrast: [baseline]",
            "",
            "numbers of 1e+09 at most",
        ),
        (
            f"{ALONG}, direction: rises, contrast: [loss_on_patches], "
            "control: [cls_position_none, baseline]",
            "",
            "along its factor: control has weights that sum to",
        ),
        (
            f"{ALONG}, direction: rises, contrast: [baseline], rungs: [deep]",
            "",
            "rungs is made of `direction: crosses`",
        ),
        ("direction: Crosses, contrast: [baseline]", "", "; or crosses, with along"),
        (
            "direction: rises, contrast: [baseline]",
            "claims: {c: {text: x, hypotheses: [h], crossing: null}}",
            "claim c: crossing is made of a hypothesis with direction: crosses",
        ),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, text: str, more: str, message: str):
    with pytest.raises(StudyError) as raised:
        loaded(tmp_path, text, more)
    lines = [line for line in str(raised.value).splitlines() if message in line]
    assert len(lines) == 1, str(raised.value)
