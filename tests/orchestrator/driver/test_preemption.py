"""A machine that is to be taken away: what trains there saves, and goes on elsewhere."""

import subprocess
import sys
import threading
import time

import pytest
import ray

from orchestrator.driver.preemption import Notices
from tests.orchestrator.conftest import environment, start
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
print("to go:", *said, flush=True)
sys.stdin.read()
nodes.shutdown()
"""

# No checkpoint but those that a notice asks for.
STUDY = """
name: preempted
recipe: digits_tiny
seeds: 1
set:
  {steps: 900, evaluation.every: 900, log_every: 10, checkpoint_every: 900, batch_size: 16,
   evaluation.globality_images: 16, evaluation.globality_probe_images: 8,
   evaluation.causal_images: 0, evaluation.probes: false}
arms: []
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
    study.write_text(STUDY)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", TWO_MACHINES],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment(),
    ) as machines:  # fmt: skip
        address = next(line.split()[1] for line in machines.stdout if line.startswith("address"))
        arguments = ["run", study, "--root", root, "--workers", workers]
        with start(*arguments, RAY_ADDRESS=address) as driver:
            until = time.monotonic() + 120
            while not list(root.glob("trials/*/attempts/0001/metrics-000000000.jsonl")):
                assert time.monotonic() < until
                time.sleep(0.1)
            machines.stdin.write("take the first away\n")
            machines.stdin.flush()
            assert next(machines.stdout).split()[:3] == ["to", "go:", "True"]
            said = driver.stdout.read()
        machines.communicate(timeout=120)
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
