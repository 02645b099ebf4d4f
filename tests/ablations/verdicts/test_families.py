"""Families: which hypotheses are adjusted together, and how."""

import math
from pathlib import Path

import numpy as np
import pytest

from ablations.spec import Hypothesis, Multiplicity
from ablations.statistics.max_t import step_down_p
from ablations.study.loading import load_study
from ablations.verdicts.evidence import Run
from ablations.verdicts.families import adjusted, families_of
from ablations.verdicts.judge import judge

RISING = np.arange(1.0, 9.0)


def hypothesis(**change):
    given = {
        "metric": "probe/knn",
        "contrast": ("arm", "baseline"),
        "direction": "rises",
        "smallest_effect": 1.0,
    }
    return Hypothesis(**(given | change))


def adjusted_p(rows, hypotheses=None, failed=(), by="max-t", p=None):
    """Adjusted p of hypotheses with these differences, in order."""
    names = [str(number) for number in range(len(rows))]
    hypotheses = hypotheses or [hypothesis()] * len(rows)
    alone = p or [float(step_down_p(np.array([row]))[0]) for row in rows]
    found = adjusted(
        dict(zip(names, hypotheses, strict=True)),
        {name: list(row) for name, row in zip(names, rows, strict=True) if name not in failed},
        {name: None if name in failed else p for name, p in zip(names, alone, strict=True)},
        Multiplicity(by=by),
    )
    return [found[name].p for name in names], [found[name].text for name in names]


def test_a_family_is_adjusted_by_max_t_over_its_rows():
    rows = np.random.default_rng(0).standard_normal((4, 8)) + 0.8
    p, text = adjusted_p(rows)
    assert p == pytest.approx(step_down_p(rows).tolist())
    assert set(text) == {" after max-T over 4 hypotheses"}
    assert adjusted_p(rows[:1])[1] == [""]


def test_the_same_end_point_twice_costs_nothing_by_max_t_and_double_by_holm():
    assert adjusted_p([RISING, RISING])[0] == [2 / 256, 2 / 256]
    assert adjusted_p([RISING, RISING], by="holm")[0] == [4 / 256, 4 / 256]


def test_eight_seeds_bear_a_family_of_eight_by_max_t_where_holm_cannot():
    noise = np.random.default_rng(1).standard_normal((8, 8))
    assert max(adjusted_p(3 + noise)[0]) <= 0.05
    assert min(adjusted_p(3 + noise, by="holm")[0]) == 8 * 2 / 256 > 0.05


@pytest.mark.parametrize("by", ["holm", "fixed-sequence"])
def test_nobody_gains_by_a_failure_in_the_family(by):
    rows = np.random.default_rng(3).standard_normal((5, 8)) + 1
    full = adjusted_p(rows, by=by)[0]
    for lost in range(5):
        others = adjusted_p(rows, failed={str(lost)}, by=by)[0]
        assert all(others[i] >= full[i] - 1e-12 for i in range(5) if i != lost)
        assert others[lost] == 1


def test_max_t_shares_alpha_with_those_that_failed():
    assert adjusted_p([RISING, RISING, RISING], failed={"1"})[0] == [3 / 256, 1, 3 / 256]
    rows = np.random.default_rng(3).standard_normal((5, 8)) + 1
    rest = np.minimum(step_down_p(rows[:3]) * 5 / 3, 1)
    assert adjusted_p(rows, failed={"3", "4"})[0] == pytest.approx([*rest, 1, 1])


def test_a_fixed_sequence_costs_nothing_until_one_does_not_pass():
    p, text = adjusted_p([RISING] * 4, by="fixed-sequence", p=[0.01, 0.04, 0.2, 0.001])
    assert p == [0.01, 0.04, 0.2, 0.2]
    assert text[0] == " after a fixed sequence over 4 hypotheses"


def test_secondary_hypotheses_are_one_family_by_benjamini_hochberg():
    secondary = [hypothesis(secondary=True, family=family) for family in "abc"]
    p, text = adjusted_p([RISING] * 4, [*secondary, hypothesis()], p=[0.01, 0.04, 0.03, 0.02])
    assert p == pytest.approx([0.03, 0.04, 0.04, 2 / 256])
    assert text == [" after Benjamini-Hochberg over 3 hypotheses"] * 3 + [""]


def test_a_family_with_a_t_test_is_adjusted_by_holm():
    p, text = adjusted_p([RISING, RISING], [hypothesis(test="t"), hypothesis()], p=[0.01, 0.02])
    assert p == [0.02, 0.02]
    assert text[0] == " after Holm over 2 hypotheses"


def test_those_that_predict_no_change_cost_the_others_nothing():
    p, _ = adjusted_p([RISING] * 3, [hypothesis(), *[hypothesis(direction="holds")] * 2])
    assert p == [2 / 256] * 3
    p, _ = adjusted_p([RISING] * 3, [hypothesis(), *[hypothesis(direction="holds")] * 2], by="holm")
    assert p == [2 / 256, 4 / 256, 4 / 256]


def test_judge_decides_by_the_adjusted_p_and_says_how():
    runs = {}
    noise = np.random.default_rng(1).standard_normal((8, 8))
    for seed in range(8):
        end = {str(number): 3 + float(noise[number, seed]) for number in range(8)}
        runs["arm", seed] = Run(status="finished", start={}, end=end)
        runs["baseline", seed] = Run(status="finished", start={}, end=dict.fromkeys(end, 0.0))
    hypotheses = {str(number): hypothesis(metric=str(number)) for number in range(8)}
    found = judge(hypotheses, {}, runs, range(8))
    assert {verdict.label for verdict in found.values()} == {"supported"}
    assert "after max-T over 8 hypotheses" in found["0"].reason
    found = judge(hypotheses, {}, runs, range(8), multiplicity=Multiplicity(by="holm"))
    assert {verdict.label for verdict in found.values()} == {"inconclusive"}


def same_runs(key):
    return {
        (arm, seed): Run(status="finished", start={}, end={"probe/knn": 0.5}, key=key or arm)
        for arm in ("arm", "baseline")
        for seed in range(8)
    }


def test_equal_runs_prove_no_more_than_their_signs_unless_they_are_one_trial():
    holds = {"h": hypothesis(direction="holds", smallest_effect=1e-9, alpha=0.003)}
    found = judge(holds, {}, same_runs(key=""), range(8))["h"]
    assert found.p_equivalence == 2**-8
    found = judge(holds, {}, same_runs(key="one"), range(8))["h"]
    assert found.p_equivalence == 0
    own = {"h": hypothesis(direction="holds", contrast=("arm",), alpha=0.003)}
    assert judge(own, {}, same_runs(key="one"), range(8))["h"].p_equivalence == 2**-8


STUDY = """
name: families
recipe: digits_tiny
seeds: 8
arms: [registers_4]
claims:
  first: {text: so it is, hypotheses: [a, b]}
  second: {text: and so, hypotheses: [b, c]}
hypotheses:
"""


@pytest.mark.parametrize(
    ("multiplicity", "families"),
    [
        ("", ["first", "first", "second", "primary", "own"]),
        ("multiplicity: {over: study, by: holm}\n", ["study"] * 4 + ["own"]),
    ],
)
def test_a_family_is_the_first_claim_that_names_it_unless_it_says_otherwise(
    tmp_path: Path, multiplicity, families
):
    one = "metric: knn/cls_top1, contrast: [registers_4, baseline], direction: rises"
    lines = [f"  {name}: {{{one}, smallest_effect: 0.1}}\n" for name in "abcd"]
    lines.append(f"  e: {{{one}, smallest_effect: 0.1, family: own}}\n")
    path = tmp_path / "study.yaml"
    path.write_text(multiplicity + STUDY.lstrip() + "".join(lines))
    study = load_study(path)
    assert [h.family for h in study.hypotheses.values()] == families
    stated = study.to_json()["multiplicity"]
    assert stated["by"] == ("holm" if multiplicity else "max-t")


def test_false_claims_of_a_family_are_alpha_at_most_though_its_rows_are_alike():
    rng = np.random.default_rng(5)
    shared = rng.standard_normal((3000, 1, 8))
    rows = math.sqrt(0.7) * shared + math.sqrt(0.3) * rng.standard_normal((3000, 5, 8))
    rows[:, 0] += 2
    wrong = (step_down_p(rows)[:, 1:] <= 0.05).any(-1).mean()
    assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3000)


def test_an_adjusted_p_is_1_at_most_though_others_failed():
    rows = np.array([[1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 2.0]] * 3)
    assert step_down_p(rows)[0] * 3 > 1
    for by in ("max-t", "holm", "fixed-sequence"):
        p, _ = adjusted_p(rows, failed={"1", "2"}, by=by)
        assert max(p) <= 1


def test_a_family_that_failed_whole_has_p_1():
    for by in ("max-t", "holm", "fixed-sequence"):
        assert adjusted_p([RISING, RISING], failed={"0", "1"}, by=by)[0] == [1.0, 1.0]


def test_families_keep_their_order_and_kinds_apart():
    stated = {
        "a": hypothesis(family="x"), "b": hypothesis(family="y"), "c": hypothesis(family="x"),
        "d": hypothesis(family="x", direction="holds"), "e": hypothesis(secondary=True, family="x"),
        "f": hypothesis(secondary=True, family="y"),
        "g": hypothesis(secondary=True, direction="holds"),
    }  # fmt: skip
    assert families_of(stated) == [["a", "c"], ["b"], ["d"], ["e", "f"], ["g"]]
