"""What a worker group's trial tells Tune."""

import threading

from orchestrator.driver import worker
from trainers.runs.reporters import JsonLines
from trainers.runs.trial import TrialFolder


class Rounds(threading.Event):
    """Each time it is waited for, one more of `happens` has happened; with the last it is set."""

    def __init__(self, *happens):
        super().__init__()
        self.happens = list(happens)

    def wait(self, timeout=None):
        self.happens.pop(0)()
        return not self.happens


def test_records_of_a_group_are_told_once_in_order_and_to_the_last(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(worker.tune, "report", told.append)
    folder = TrialFolder(tmp_path / "trial")

    def write(*steps, keep_up_to):
        lines = JsonLines(folder.metrics, keep_up_to=keep_up_to)
        for step in steps:
            lines.report(step, {"loss/total": 1.0 + step, "time/step_s": 0.1})

    worker._follow(
        folder,
        Rounds(
            lambda: None,
            lambda: write(0, 10, keep_up_to=-1),
            # Another attempt takes back what the checkpoint does not know, and comes past it.
            lambda: write(10, keep_up_to=0),
            lambda: write(20, 30, keep_up_to=10),
        ),
    )
    assert told == [{"step": step, "loss/total": 1.0 + step} for step in (0, 10, 20, 30)]
