"""What Tune is told when it asks for a trial."""

from types import SimpleNamespace

from ray.tune.search import Searcher

from orchestrator.driver.searching import Scheduled
from orchestrator.schedule import Stop, Wait


def test_what_has_ended_is_known_before_tune_is_told_to_wait() -> None:
    running, spared = {"a trial"}, list[int]()

    def decided() -> Wait | Stop:
        return Wait(running=len(running)) if running else Stop(reason="all is done")

    def searcher(settle: object) -> Scheduled:
        standings = SimpleNamespace(decided=decided)
        room = SimpleNamespace(look=lambda: 1, left=lambda _: 0)
        return Scheduled(standings, room, lambda *_: None, settle, spared.append)  # type: ignore[arg-type]

    assert searcher(lambda: None).suggest("name") is None
    assert spared == [0]
    assert searcher(running.clear).suggest("name") == Searcher.FINISHED
