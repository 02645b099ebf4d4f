"""Every hypothesis that another study has turned round is found."""

import json
from typing import Any

from ablations.registration import Entry
from dashboards.verification.turned import check_turned

ARMS, SEEDS, HYPOTHESES = 40, 12, 80


def registered(study: str, *, direction: str, known: bool, **fields: Any) -> Entry:
    arms = {"baseline": {}, **{f"a{i}": {"steps": i} for i in range(ARMS)}}
    hypotheses = {
        f"h{i}": {
            "metric": f"m{i}",
            "contrast": [f"a{i % ARMS}", "baseline"],
            "direction": direction,
            "smallest_effect": 0.1,
            **fields,
        }
        for i in range(HYPOTHESES)
    }
    trials = [{"key": f"{arm}-{s}", "arm": arm, "seed": s} for arm in arms for s in range(SEEDS)]
    content = {
        "study": study,
        "number": 1,
        "hypotheses_sha256": "",
        "resolved": {
            "seeds": list(range(SEEDS)),
            "arms": arms,
            "hypotheses": hypotheses,
            "gates": {},
        },
        "arms": {},
        "trials": trials,
        "config": {},
        "known": {one["key"]: "" for one in trials} if known else {},
    }
    return Entry.model_validate_json(json.dumps(content))


def test_each_of_many_hypotheses_that_were_turned_round_is_found() -> None:
    then = registered("then", direction="rises", known=False)
    now = registered("now", direction="falls", known=True)
    found = list(check_turned([now], [[then]]))
    assert len(found) == HYPOTHESES
    assert "hypothesis h0 is h0 of study then (registration 1) turned round" in found[0].what


def test_a_change_along_a_factor_is_the_same_however_its_weights_are_written() -> None:
    then = registered("then", direction="rises", known=False, along={"a0": 1.0, "baseline": 2.0})
    same = registered("now", direction="rises", known=True)
    assert list(check_turned([same], [[then]])) == []
    turned = registered("now", direction="falls", known=True)
    assert len(list(check_turned([turned], [[then]]))) == HYPOTHESES
