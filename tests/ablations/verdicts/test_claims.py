"""What hypotheses decide together."""

import itertools
import math
from typing import get_args

import numpy as np
import pytest
import scipy.stats
from pydantic import ValidationError

from ablations.spec import Claim, Hypothesis
from ablations.verdicts.claims import judge_claims
from ablations.verdicts.rule import Label

LABELS = get_args(Label)


def judged(labels, rule="all", holds=()):
    names = tuple(f"h{i}" for i in range(len(labels)))
    hypotheses = {
        name: Hypothesis(
            metric="probe/knn",
            contrast=("a", "b"),
            direction="holds" if name in holds else "rises",
            smallest_effect=1.0,
        )
        for name in names
    }
    claim = Claim(text="so it is", hypotheses=names, rule=rule)
    found = judge_claims({"c": claim}, hypotheses, dict(zip(names, labels, strict=True)))
    return found["c"]


def test_a_claim_of_one_hypothesis_has_its_label_whatever_the_rule():
    for label, rule in itertools.product(LABELS, ("all", "any", "h0")):
        assert judged([label], rule).label == label


@pytest.mark.parametrize("labels", list(itertools.product(LABELS, repeat=3)))
def test_all_is_supported_only_if_every_one_is_and_any_if_one_is(labels):
    every, some = judged(labels).label, judged(labels, "any").label
    assert (every == "supported") == all(label == "supported" for label in labels)
    assert (some == "supported") == ("supported" in labels)


@pytest.mark.parametrize("labels", list(itertools.product(LABELS, repeat=3)))
def test_one_that_is_not_so_decides_all_of_them_whatever_failed_beside_it(labels):
    if "refuted" in labels:
        assert judged(labels).label == "refuted"
    elif "equivalent" in labels:
        assert judged(labels).label == "equivalent"
    elif "failed" in labels:
        assert judged(labels).label == "failed"


@pytest.mark.parametrize("labels", list(itertools.product(LABELS, repeat=3)))
def test_nothing_decides_any_of_them_while_one_is_unknown(labels):
    if "supported" not in labels and "failed" in labels:
        assert judged(labels, "any").label == "failed"
    elif "supported" not in labels and "insensitive" in labels:
        assert judged(labels, "any").label == "insensitive"


@pytest.mark.parametrize(
    ("labels", "every", "some"),
    [
        (("supported", "refuted", "equivalent"), "refuted", "supported"),
        (("supported", "equivalent", "inconclusive"), "equivalent", "supported"),
        (("supported", "inconclusive"), "inconclusive", "supported"),
        (("supported", "insensitive"), "insensitive", "supported"),
        (("inconclusive", "insensitive"), "insensitive", "insensitive"),
        (("equivalent", "insensitive"), "equivalent", "insensitive"),
        (("refuted", "inconclusive"), "refuted", "inconclusive"),
        (("refuted", "equivalent"), "refuted", "refuted"),
    ],
)
def test_the_rules_in_cases(labels, every, some):
    assert judged(labels).label == every
    assert judged(labels, "any").label == some


def test_a_named_hypothesis_decides_alone():
    assert judged(("refuted", "supported", "failed"), "h1").label == "supported"


def test_the_order_of_hypotheses_does_not_matter():
    for labels in itertools.permutations(("supported", "refuted", "inconclusive")):
        assert judged(labels).label == "refuted"


def test_the_reason_names_every_hypothesis_and_says_which_predicted_no_change():
    reason = judged(("supported", "refuted"), holds=("h0",)).reason
    assert reason == "h0 supported (no change was predicted); h1 refuted"


def test_a_rule_must_be_known():
    with pytest.raises(ValidationError, match="all, any or one of its hypotheses, got 'most'"):
        Claim(text="so it is", hypotheses=("h0",), rule="most")


def judged_by_p(p, rule="any", holds=(), families=(), secondary=(), unsupported=()):
    """The claim when the hypotheses are supported alone, but some, with these p-values."""
    names = tuple(f"h{number}" for number in range(len(p)))
    hypotheses = {
        name: Hypothesis(
            metric="probe/knn",
            contrast=("a", "b"),
            direction="holds" if name in holds else "rises",
            smallest_effect=1.0,
            family=dict(families).get(name, "one"),
            secondary=name in secondary,
        )
        for name in names
    }
    claim = Claim(text="so it is", hypotheses=names, rule=rule)
    labels = {name: "inconclusive" if name in unsupported else "supported" for name in names}
    return judge_claims({"c": claim}, hypotheses, labels, dict(zip(names, p, strict=True)))["c"]


def test_any_of_three_equivalences_needs_one_at_a_third_of_alpha():
    three = ("h0", "h1", "h2")
    assert judged_by_p([0.016, 0.04, 0.04], holds=three).label == "supported"
    found = judged_by_p([0.018, 0.04, 0.04], holds=three)
    assert found.label == "inconclusive"
    assert "h0 supported alone, but p 0.054 after Holm over 3" in found.reason
    assert judged_by_p([0.04, 0.04, 0.04], "all", holds=three).label == "supported"
    assert judged_by_p([0.04, 0.04, 0.04], "h1", holds=three).label == "supported"


def test_an_equivalence_that_failed_keeps_its_place():
    assert judged_by_p([0.03, None], holds=("h0", "h1")).label != "supported"


def test_any_of_one_family_is_adjusted_in_the_family_alone():
    assert judged_by_p([0.04, 0.04, 0.04]).label == "supported"


def test_any_of_two_families_or_of_both_kinds_is_adjusted_for_both():
    assert judged_by_p([0.04, 0.04], families={"h1": "two"}).label == "inconclusive"
    assert judged_by_p([0.04, 0.04], holds=("h1",)).label == "inconclusive"
    assert judged_by_p([0.02, 0.04], holds=("h1",)).label == "supported"


def test_a_small_effect_in_a_family_lets_nothing_else_of_it_through():
    two = {"h2": "two"}
    judged = judged_by_p([0.001, 0.04, 0.9], families=two, unsupported=("h0", "h2"))
    assert judged.label == "inconclusive"
    assert "h1 supported alone, but p 0.08 after Holm over 2" in judged.reason
    assert judged_by_p([0.001, 0.02, 0.9], families=two, unsupported=("h0",)).label == "supported"


def test_each_secondary_hypothesis_is_paid_for_since_benjamini_and_hochberg_bound_no_single_error():
    assert judged_by_p([0.04, 0.04], secondary=("h0", "h1")).label == "inconclusive"
    assert judged_by_p([0.04, 0.04], secondary=("h1",)).label == "inconclusive"
    assert judged_by_p([0.02, 0.04], secondary=("h0", "h1")).label == "supported"


def test_any_of_five_equivalences_at_the_margin_is_wrong_at_alpha_at_most():
    rng = np.random.default_rng(0)
    draws, k, n = 4000, 5, 8
    d = rng.standard_normal((draws, k, n)) + 1.0
    errors = d.std(-1, ddof=1) / math.sqrt(n)
    p = scipy.stats.t.cdf((d.mean(-1) - 1.0) / errors, n - 1)
    holds = tuple(f"h{number}" for number in range(k))
    alone = np.mean((p <= 0.05).any(-1))
    assert alone == pytest.approx(1 - 0.95**k, abs=0.02)
    judged_so = [judged_by_p(list(row), holds=holds).label == "supported" for row in p[:60]]
    assert np.mean(judged_so) == np.mean(p[:60].min(-1) <= 0.05 / k)


def test_an_adjusted_p_of_exactly_alpha_is_enough():
    assert judged_by_p([0.05]).label == "supported"
    assert judged_by_p([0.025, 0.5], holds=("h0", "h1")).label == "supported"


def test_a_claim_is_stored_as_its_label_and_reason():
    assert judged(("supported",)).to_json() == {"label": "supported", "reason": "h0 supported"}
