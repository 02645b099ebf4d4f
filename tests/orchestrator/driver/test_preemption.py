"""A machine that is to be taken away: what trains there saves, and goes on elsewhere."""

import threading
import time

import pytest
import ray

from orchestrator.driver.preemption import Notices
from tests.orchestrator.conftest import Nodes, baseline_alone, start
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import open_store

TWO_MACHINES = """
import sys
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
first = nodes.add_node(num_cpus=2)
nodes.wait_for_nodes()
print("address", nodes.address, flush=True)
sys.stdin.readline()
nodes.add_node(num_cpus=2)
nodes.wait_for_nodes()
said = GcsClient(address=nodes.address).drain_node(
    first.node_id, DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"), "spot", 2**42
)
print("done", *said, flush=True)
sys.stdin.read()
nodes.shutdown()
"""


def test_without_ray_nobody_is_asked_and_none_is_started():
    before = threading.active_count()
    with Notices("name"):
        assert threading.active_count() == before
    assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_trial_whose_machine_is_to_go_saves_and_goes_on_elsewhere(tmp_path, workers):
    study, root = tmp_path / "preempted.yaml", tmp_path / "runs"
    # No checkpoint but those that a notice asks for.
    study.write_text(baseline_alone("preempted", steps=900, log_every=10, checkpoint_every=900))
    with Nodes(TWO_MACHINES) as machines:
        arguments = ["run", study, "--root", root, "--workers", workers]
        with start(*arguments, RAY_ADDRESS=machines.address) as driver:
            until = time.monotonic() + 120
            while not list(root.glob("trials/*/attempts/0001/metrics-000000000.jsonl")):
                assert time.monotonic() < until
                time.sleep(0.1)
            assert machines.tell("take the first away").split()[0] == "True"
            said = driver.stdout.read()
    assert driver.returncode == 0, said
    (key,) = (path.name for path in (root / "trials").iterdir())
    trial = StoredTrial(open_store(str(root)), key)
    result = trial.finished()
    step = result["resumed_at"]
    assert 0 < step < result["step"] == 900
    told = f"interrupted: its machine is to be taken away: saved at step {step}; "
    assert said.count(told) == said.count("tried again in") == 1, said
    assert [trial.lease(number).outcome for number in (1, 2)] == ["interrupted", "finished"]
    assert "Traceback" not in said
    verified = start("verify", "preempted", "--root", root)
    assert verified.communicate(timeout=120)[0].rstrip().endswith("nothing is wrong")
