"""What is seen of a study before all of it is there: how far it is, and no end point."""

import contextlib
import json
import math

import pytest

from ablations.registration import registration_key
from dashboards.tables.derived import judged
from dashboards.tables.reading import read_study
from dashboards.tables.watched import Watched, _finite, shown_metrics
from tests.dashboards.conftest import ARMS, HYPOTHESES, SEEDS
from tests.registered import restated
from trainers.errors import InputError
from trainers.runs.attempt import claimed
from trainers.runs.stored_trial import StoredTrial

HALF = {(arm, seed): "missing" for arm in ARMS for seed in SEEDS[3:]}
DESIGN = {"looks": [3, 6], "spending": "pocock", "futility": ""}


@contextlib.contextmanager
def at_work(store, key, *records):
    """An attempt of this process at a trial, which has recorded that."""
    attempt = claimed(StoredTrial(store, key), steps=100, driver="d", over=(), waits=False)
    for step, metrics in records:
        attempt.records.report(step, metrics)
    attempt.held.change(step=records[-1][0], rate=2.0)
    yield attempt
    attempt.end("interrupted")


def left_failed(made, arm, seed):
    """A failed run says in its lease that it is over."""
    content = {"holder": {"host": "h", "space": "", "pid": 1, "started": ""}, "driver": "d",
               "from_attempt": 0, "from_step": -1, "steps": 600, "outcome": "failed"}  # fmt: skip
    lease = f"{made.trial(arm, seed).attempt_folder(1)}/lease.json"
    made.store.put(lease, json.dumps(content).encode())


def designed(made, **change):
    restated(made.registration, lambda stated: stated["resolved"].update(design=DESIGN, **change))


def about(made, metric="", **change):
    """States one hypothesis, on that metric, and no gate."""
    some = {**HYPOTHESES["loss_on_cls_makes_it_useful"], "metric": metric, **change}
    restated(made.registration, lambda s: s["resolved"].update(hypotheses={"h": some}, gates={}))


def of_time(made):
    about(made, "time/step_s")


def look(made):
    return Watched(made.store, made.name).look()


class TestAFixedDesign:
    def test_tells_nothing_while_a_run_is_missing(self, make_study):
        one_short = {("baseline", 5): "missing"}
        assert look(make_study(one_short)).told == ()

    def test_tells_nothing_beside_a_failed_run(self, make_study):
        made = make_study({("baseline", 5): "failed"})
        left_failed(made, "baseline", 5)
        seen = look(made)
        assert seen.progress["baseline", 5].state == "failed"
        assert seen.told == ()
        assert not seen.complete

    def test_tells_every_verdict_once_all_runs_have_ended(self, make_study):
        made = make_study()
        seen = look(made)
        assert seen.complete
        judged_now = judged(read_study(made.store, made.name))["hypotheses"]
        labels = {name: one["verdict"]["label"] for name, one in judged_now.items()}
        assert {one.name: one.label for one in seen.told} == labels
        assert seen.told[1].text.startswith("6 seeds, -0.1")


class TestASequentialDesign:
    def test_tells_what_its_newest_look_has_shown(self, make_study):
        made = make_study(HALF)
        designed(made)
        told = {one.name: one for one in look(made).told}
        assert told["loss_on_cls_makes_it_useful"].text.startswith("look 1 of 2, 3 seeds, -0.1")

    def test_tells_nothing_between_its_looks(self, make_study):
        made = make_study({**HALF, ("baseline", 2): "missing"})
        designed(made)
        assert {(one.label, one.text) for one in look(made).told} == {
            ("", "no look yet: the first is at 3 seeds")
        }

    def test_is_told_no_more_by_runs_behind_a_look(self, make_study):
        first = make_study(HALF)
        designed(first)
        before = look(first).told
        more = make_study({place: "missing" for place in HALF if place[1] == 5},
                          root=first.root / "more")  # fmt: skip
        designed(more)
        assert look(more).told == before


class TestARunAtWork:
    def test_has_its_newest_loss_and_globality(self, make_study):
        made = make_study(HALF)
        of_time(made)
        key = made.trial("baseline", 3).key
        cls = {"globality/cls/entropy": 0.9, "globality/cls/gyration": 0.1}
        with at_work(made.store, key, (0, cls), (4, {"loss/total": 2.0}), (8, {"loss/total": 1.5})):
            seen = look(made)
        assert seen.progress["baseline", 3].state == "running"
        assert seen.latest == {key: {"globality/cls/entropy": 0.9, "loss/total": 1.5}}

    def test_is_looked_for_in_segments_that_have_ended(self, make_study):
        made = make_study(HALF)
        of_time(made)
        trial = made.trial("baseline", 3)
        with at_work(made.store, trial.key, (0, {"globality/cls/entropy": 0.9})) as attempt:
            attempt.records.cut()
            attempt.records.report(4, {"loss/total": 2.0})
            watched = Watched(made.store, made.name)
            found = [watched.look().latest[trial.key] for _ in range(2)]
        assert found == [{"globality/cls/entropy": 0.9, "loss/total": 2.0}] * 2

    def test_says_how_long_all_take_at_its_pace(self, make_study):
        made = make_study({("baseline", 3): "missing"})
        with at_work(made.store, made.trial("baseline", 3).key, (20, {"loss/total": 2.0})):
            assert look(made).seconds_left == pytest.approx(40)

    def test_whose_records_are_damaged_has_none(self, make_study):
        made = make_study(HALF)
        trial = made.trial("baseline", 3)
        with at_work(made.store, trial.key, (0, {"loss/total": 2.0})):
            made.store.put(trial.newest_segments()[1][0], b"{")
            assert look(made).latest == {trial.key: {}}


@pytest.mark.parametrize(
    ("interval", "ends"),
    [((-1.0, 2.0), (-1.0, 2.0)), ((-math.inf, 2.0), None), ((-math.inf, math.inf), None),
     (None, None)],
)  # fmt: skip
def test_an_interval_without_an_end_is_none(interval, ends):
    assert _finite(interval) == ends


@pytest.mark.parametrize(
    ("metric", "shown"),
    [
        ("time/step_s", ("loss/total", "globality/cls/entropy")),
        ("memory/peak_gib", ("loss/total", "globality/cls/entropy")),
        ("globality/cls/gyration", ("loss/total", "")),
        ("globality/contrast/entropy/final_block", ("loss/total", "")),
        ("rollout/cls/coverage", ("loss/total", "")),
        ("influence/patch/distance", ("loss/total", "")),
        ("loss/total", ("", "")),
        ("loss/cls_kl", ("", "")),
        ("knn/cls_top1", ("", "")),
        ("collapse/target_entropy", ("", "")),
    ],
)
def test_nothing_is_shown_that_says_something_of_an_end_point(make_study, metric, shown):
    made = make_study(HALF)
    about(made, metric)
    assert shown_metrics(look(made).entry) == shown


def test_nothing_is_shown_that_says_something_of_a_gate(make_study):
    made = make_study(HALF)
    restated(made.registration, lambda s: s["resolved"].update(hypotheses={}))
    assert shown_metrics(look(made).entry) == ("", "")


class TestAStudyOfHowRunsEnd:
    def test_tells_none_of_it_while_a_run_is_missing(self, make_study):
        made = make_study({("baseline", 5): "missing", ("baseline", 0): "collapsed",
                           ("baseline", 1): "diverged"})  # fmt: skip
        about(made, endpoint="collapsed")
        seen = look(made)
        assert {(one.state, one.reason) for one in seen.progress.values()} == {
            ("ended", ""), ("waiting", ""),
        }  # fmt: skip
        assert shown_metrics(seen.entry) == ("", "")

    def test_tells_it_once_all_runs_have_ended(self, make_study):
        made = make_study({("baseline", 0): "collapsed"})
        about(made, endpoint="collapsed")
        assert look(made).progress["baseline", 0].state == "collapsed"

    def test_of_a_sequential_design_tells_it_of_its_looks(self, make_study):
        made = make_study({**HALF, ("baseline", 3): "collapsed", ("baseline", 2): "collapsed"})
        about(made, endpoint="collapsed")
        designed(made)
        progress = look(made).progress
        assert progress["baseline", 2].state == "collapsed"
        assert progress["baseline", 3].state == "ended"


class TestAStudyIsComplete:
    @pytest.mark.parametrize("ending", ["finished", "collapsed", "stopped", "diverged"])
    def test_when_every_run_has_a_result(self, make_study, ending):
        assert look(make_study(otherwise=ending)).complete

    @pytest.mark.parametrize("ending", ["missing", "running"])
    def test_not_while_one_has_none(self, make_study, ending):
        assert not look(make_study({("baseline", 0): ending})).complete

    def test_with_a_failed_run_once_it_is_judged_without_it(self, make_study):
        made = make_study({("baseline", 0): "failed"})
        left_failed(made, "baseline", 0)
        assert not look(made).complete
        made.store.put(f"{made.folder.relative_to(made.root)}/verdicts.json", b"{}")
        assert look(made).complete
        assert {one.name for one in look(made).told} == {*HYPOTHESES}

    @pytest.mark.parametrize("sequential", [True, False])
    def test_where_a_failed_run_keeps_a_sequential_one_waiting(self, make_study, sequential):
        made = make_study({**HALF, ("baseline", 0): "failed"})
        left_failed(made, "baseline", 0)
        if sequential:
            designed(made)
        made.store.put(f"{made.folder.relative_to(made.root)}/verdicts.json", b"{}")
        assert look(made).complete == sequential


def test_what_is_no_study_is_one_line(make_study):
    made = make_study()
    with pytest.raises(InputError, match="is no study: it has no registration"):
        Watched(made.store, "another")
    made.store.put(registration_key(made.name, 1), b"{")
    with pytest.raises(InputError, match="is damaged"):
        Watched(made.store, made.name)
