"""A trial whose workers follow what there is: more where there is room, else fewer."""

import time

import numpy as np
import pytest

from dashboards.tables.values import values_of
from tests.orchestrator.conftest import Nodes, baseline_alone, dinolab, start
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import open_store

GROWS_AND_SHRINKS = """
import sys
from ray.cluster_utils import Cluster
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
print("address", nodes.address, flush=True)
second = None
for line in sys.stdin:
    if line.strip() == "add":
        second = nodes.add_node(num_cpus=1)
    else:
        nodes.remove_node(second, allow_graceful=False)
    print("done", flush=True)
nodes.shutdown()
"""

STUDY = baseline_alone(
    "elastic", steps=1200, log_every=10, checkpoint_every=20,
    resources="{workers: 1, most_workers: 4}",
)  # fmt: skip


def trial_of(root):
    (key,) = (path.name for path in (root / "trials").iterdir())
    return StoredTrial(open_store(str(root)), key)


def losses_of(trial):
    rows = values_of(trial, trial.finished()).to_pylist()
    return {row["step"]: row["value"] for row in rows if row["metric"] == "loss/total"}


def comes(condition, seconds=180):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_gets_more_workers_when_machines_come_and_fewer_when_they_go(tmp_path):
    study, root = tmp_path / "elastic.yaml", tmp_path / "runs"
    study.write_text(STUDY)
    with Nodes(GROWS_AND_SHRINKS) as machines:
        told = {"RAY_ADDRESS": machines.address, "DINOLAB_MOVE_AFTER_S": "2"}
        with start("run", study, "--root", root, **told) as driver:
            comes(lambda: list(root.glob("trials/*/attempts/0001/metrics-*.jsonl")))
            machines.tell("add")
            comes(lambda: list(root.glob("trials/*/attempts/0002/checkpoint-*.json")))
            machines.tell("take away")
            said = driver.stdout.read()
    assert driver.returncode == 0, said
    assert "Traceback" not in said
    trial = trial_of(root)
    leases = [trial.lease(number) for number in trial.attempts()]
    assert "there is room for 2 workers: saved at step" in said, said
    assert leases[0].outcome == "interrupted"
    assert leases[-1].outcome == "finished"
    assert trial.finished()["workers"] == 1
    assert trial.finished()["resumed_at"] > leases[1].from_step > 0
    assert [one["workers"] for one in trial.finished()["earlier_machines"]] == [2]

    # What one worker sees all the way, to the last crop; sums are rounded otherwise.
    alone = tmp_path / "alone"
    code, output = dinolab(
        "run", study, "--root", alone, "--workers", 1, RAY_ADDRESS="", OMP_NUM_THREADS="1"
    )
    assert code == 0, output
    undisturbed = trial_of(alone)
    assert undisturbed.finished()["chain"] == trial.finished()["chain"]
    found, expected = losses_of(trial), losses_of(undisturbed)
    assert found.keys() == expected.keys()
    # Until the first change bit for bit; then sums of two workers, which drift apart slowly.
    change = leases[1].from_step
    assert [found[step] for step in found if step <= change] == [
        expected[step] for step in found if step <= change
    ]
    soon = [step for step in found if change < step <= change + 50]
    assert len(soon) == 5
    np.testing.assert_allclose(
        [found[step] for step in soon], [expected[step] for step in soon], rtol=1e-2
    )
