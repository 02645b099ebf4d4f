"""What a worker group had reserved, once who asked for it is dead."""

import subprocess
import sys

from tests.orchestrator.conftest import environment

LEFT = """
import time
import ray
from ray.util.placement_group import placement_group
from orchestrator.driver.reserved import Reserved

ray.init(num_cpus=3, log_to_driver=False)

def reserve():
    group = placement_group([{"CPU": 1}])
    ray.get(group.ready())
    return group

class Controller:
    def reserve(self):
        self.group = reserve()

controllers = [ray.remote(num_cpus=0)(Controller).remote() for _ in range(2)]
ray.get([one.reserve.remote() for one in controllers])
ours = reserve()

def free():
    return ray.available_resources().get("CPU", 0)

def comes_to(number, reserved):
    until = time.monotonic() + 60
    while free() != number:
        assert time.monotonic() < until, free()
        reserved.give_back()
        time.sleep(0.05)

reserved = Reserved()
comes_to(0, reserved)
ray.kill(controllers[0])
reserved.somebody_died()
comes_to(1, reserved)
# Who lives keeps what it has, and so does the driver.
until = time.monotonic() + 5
while time.monotonic() < until:
    reserved.give_back()
    assert free() == 1
    time.sleep(0.05)
print("given back")
"""


def test_what_a_dead_controller_had_is_given_back_and_nothing_else():
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LEFT], capture_output=True, text=True,
        env=environment(), timeout=240, check=False,
    )  # fmt: skip
    assert said.stdout.splitlines()[-1:] == ["given back"], said.stderr
