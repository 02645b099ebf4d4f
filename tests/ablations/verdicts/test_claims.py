"""What hypotheses decide together."""

import itertools

import pytest
from pydantic import ValidationError

from ablations.spec import Claim, Hypothesis
from ablations.verdicts.claims import judge_claims

LABELS = ("supported", "refuted", "equivalent", "inconclusive", "failed")


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
def test_nothing_is_decided_where_what_decides_failed(labels):
    if "failed" in labels:
        assert judged(labels).label == "failed"
        if "supported" not in labels:
            assert judged(labels, "any").label == "failed"


@pytest.mark.parametrize(
    ("labels", "every", "some"),
    [
        (("supported", "refuted", "equivalent"), "refuted", "supported"),
        (("supported", "equivalent", "inconclusive"), "equivalent", "supported"),
        (("supported", "inconclusive"), "inconclusive", "supported"),
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
