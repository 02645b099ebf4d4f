"""What was stated otherwise is looked for in time that grows with what was stated."""

import json
import time

from ablations.registration import Entry
from dashboards.verification.turned import check_turned

ARMS, SEEDS, HYPOTHESES = 40, 12, 80


def registered(study: str, *, direction: str, known: bool) -> Entry:
    arms = {"baseline": {}, **{f"a{i}": {"steps": i} for i in range(ARMS)}}
    hypotheses = {
        f"h{i}": {
            "metric": f"m{i}",
            "contrast": [f"a{i % ARMS}", "baseline"],
            "direction": direction,
            "smallest_effect": 0.1,
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


def test_eighty_hypotheses_that_were_turned_round_are_found_in_less_than_two_seconds() -> None:
    then = registered("then", direction="rises", known=False)
    now = registered("now", direction="falls", known=True)
    started = time.process_time()
    found = list(check_turned([now], [[then]]))
    took = time.process_time() - started
    assert len(found) == HYPOTHESES
    assert "hypothesis h0 is h0 of study then (registration 1) turned round" in found[0].what
    assert took < 2
