"""A sequential design decides as a fixed one does, with fewer runs, whoever kills its driver."""

import json
import random
import signal

import pytest

from ablations.verdicts.judge import judge
from dashboards.figures.boundary import boundary
from dashboards.study.files import write_files
from dashboards.tables.board import board
from dashboards.tables.chain import read_chain
from dashboards.tables.reading import read_study
from tests.reliability.kills import Kills
from tests.reliability.sequential import ARMS, LABELS, NAME, SEEDS, in_a_process
from trainers.system.store import open_store

pytestmark = pytest.mark.slow

FIXED = (len(ARMS) + 1) * SEEDS


def finished(root):
    return {path.parent.name for path in root.glob("trials/*/result.json")}


def verdicts(root):
    found = json.loads((root / "studies" / NAME / "verdicts.json").read_bytes())
    return {name: entry["verdict"] for name, entry in found["hypotheses"].items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed") / "root"
    process = in_a_process(root, 0)
    process.join()
    assert process.exitcode == 0
    return root


def test_every_verdict_is_right_with_a_third_fewer_runs(undisturbed):
    found = verdicts(undisturbed)
    assert {name: verdict["label"] for name, verdict in found.items()} == LABELS
    assert len(finished(undisturbed)) <= 0.7 * FIXED
    seeds = {name: len(verdict["seeds"]) for name, verdict in found.items()}
    assert seeds == {"rise": 12, "other_rise": 12, "fall": 12, "same": 8, "collapsing": 12,
                     "broken": 8}  # fmt: skip
    assert found["same"]["reason"].endswith("stopped at look 1 of 3, 8 of 16 seeds")


def test_runs_that_nothing_needed_are_skipped_and_none_is_missing(undisturbed):
    store = open_store(undisturbed)
    study = read_study(store, NAME)
    statuses = {place: run.status for place, run in study.runs.items()}
    assert statuses["same_1", 8] == statuses["broken_1", 15] == "skipped"
    assert statuses["rise_1", 11] == "finished"
    assert statuses["rise_1", 12] == statuses["baseline", 12] == "skipped"
    assert set(statuses.values()) == {"finished", "collapsed", "skipped"}
    shown = board(read_chain(store, NAME)[-1], store)
    assert {place for place, one in shown.items() if one.state == "skipped"} == {
        place for place, status in statuses.items() if status == "skipped"
    }


def test_the_report_draws_the_boundary_and_says_what_was_saved(undisturbed):
    _, found, written = write_files(open_store(undisturbed), NAME)
    number = FIXED - len(finished(undisturbed))
    told = f"pocock at 8, 12, 16 seeds): {number} of {FIXED} runs were not needed, which saved"
    page = (undisturbed / "studies" / NAME / "report.html").read_text()
    assert told in page
    assert "<h2>Looks</h2>" in page
    assert f"{number} skipped." in page
    assert f"studies/{NAME}/figures/boundary.html" in written
    figure = boundary(found)
    assert len(figure.data) == 5 * len(LABELS)
    (p,) = (trace for trace in figure.data if trace.name == "rise: no difference")
    (edge,) = (trace for trace in figure.data if trace.name == "rise: boundary of the first")
    assert tuple(p.x) == tuple(edge.x) == (8, 12)
    assert p.y[0] > edge.y[0]
    assert p.y[1] < edge.y[1]


def test_what_is_decided_early_is_what_the_same_seeds_say_in_a_fixed_design(undisturbed):
    study = read_study(open_store(undisturbed), NAME)
    fixed = judge(study.hypotheses, study.gates, study.runs, study.seeds[:8])
    assert fixed["same"].label == "equivalent"
    assert fixed["broken"].label == "failed"


def test_ten_kills_change_no_verdict_and_no_run(undisturbed, tmp_path):
    root, chance = tmp_path / "root", random.Random(0)
    for number in range(10):
        kill = Kills(root, tmp_path / f"{number}.log", chance.randint(10, 150))
        process = in_a_process(root, number + 1, kill)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    process = in_a_process(root, 11)
    process.join()
    assert process.exitcode == 0
    assert finished(root) == finished(undisturbed)
    assert verdicts(root) == verdicts(undisturbed)
