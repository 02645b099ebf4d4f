"""What a sequential design still needs, and what its looks have decided."""

from pathlib import Path

import pytest

from ablations.verdicts import looks
from orchestrator.driver.needed import Needed
from orchestrator.registration import Statement
from tests.orchestrator.tracking.conftest import Trial as Stored
from tests.reliability.sequential import METRIC, planned, value
from trainers.system.store import LocalStore


def test_labels_are_those_of_the_last_look_and_cost_none_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, images = planned()
    store = LocalStore(tmp_path / "runs", make=True)
    Statement(plan, images, store).register()
    missing = plan.missing(store)
    needed = Needed(plan, missing, store)
    opened = ("open",) * len(plan.study.hypotheses)
    assert needed.labels() == opened
    assert needed({})
    monkeypatch.setattr(looks, "follow", None)
    assert needed.labels() == opened
    monkeypatch.undo()
    for trial in missing:
        values = {METRIC: value(trial.arms[0], trial.seed)}
        Stored(store, trial.key, trial.seed).finish(1, {0: {METRIC: 0.1}, 2: values})
    assert needed({trial.key: "finished" for trial in missing}) == ()
    monkeypatch.setattr(looks, "follow", None)
    assert "supported" in needed.labels()
    assert "open" not in needed.labels()
