"""How many trials run at once on real clusters that grow, shrink and end."""

import subprocess
import sys

import pytest

from tests.orchestrator.conftest import environment

GROWS = """
import time
import ray
from ray.cluster_utils import Cluster
from ablations.study.schema import Resources
from orchestrator.driver import searching
from orchestrator.driver.nodes import nodes_addable, nodes_there
from orchestrator.driver.output import Output
from orchestrator.resources import place
from trainers.errors import InputError

searching.LOOKED_EVERY_S = 0.0
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "labels": {"disk": "slow"}})
ray.init(cluster.address, log_to_driver=False, logging_level="CRITICAL")
cpu = Resources(device="cpu")
placement = place(cpu, nodes_there())
room = searching.Room(cpu, placement, None, print)

def comes_to(number):
    until = time.monotonic() + 60
    while room.look() != number:
        assert time.monotonic() < until, (room.look(), nodes_there())
        time.sleep(0.2)

comes_to(1)
second = cluster.add_node(num_cpus=2, labels={"disk": "fast"})
comes_to(3)
assert searching.Room(cpu, placement, 2, print).look() == 2
assert nodes_addable(cpu) == []
two = Resources(device="cpu", cpus_per_worker=2)
assert place(two, nodes_there()).concurrent == 1
try:
    place(Resources(device="cpu", cpus_per_worker=3), nodes_there())
except InputError as error:
    print(error)
fast = place(Resources(device="cpu", node_labels={"disk": "fast"}), nodes_there())
assert fast.concurrent == 2, fast

@ray.remote(num_cpus=2)
def prints():
    output = Output.of_this_process()
    print("printed there")
    return output

output = ray.get(prints.remote())
assert output.node != ray.get_runtime_context().get_node_id()
assert output.fetched() == "printed there\\n", output.fetched()
cluster.remove_node(second)
comes_to(1)
print("followed")
"""


@pytest.mark.slow
def test_what_fits_is_asked_of_each_node_and_followed_while_a_cluster_changes():
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GROWS],
        capture_output=True, text=True, env=environment(), timeout=240, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[-1] == "followed"
    refused = next(line for line in lines if line.startswith("a trial needs"))
    assert "1 worker of 3 CPUs" in refused
    assert ": 1 CPUs, 0 GPUs | " in refused or ": 2 CPUs, 0 GPUs | " in refused
