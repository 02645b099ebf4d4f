"""Two drivers, each a process, share the trials of one root; one of them dies at any time."""

import json
import os
import random
import signal
import time

import pytest

from tests.reliability.little import files, in_a_process, measured, wrong

SOAKED = bool(os.environ.get("DINOLAB_SOAK"))
ROUNDS, SEEDS = (20, 12) if SOAKED else (2, 3)
"""How often, and seeds of the two arms."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the study comes to, and seconds that it takes."""
    root = tmp_path_factory.mktemp("undisturbed") / "root"
    began = time.monotonic()
    process = in_a_process(root, SEEDS)
    process.join()
    assert process.exitcode == 0
    return measured(root), time.monotonic() - began


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_two_processes_share_the_trials_and_one_is_killed(undisturbed, tmp_path, round_):
    expected, seconds = undisturbed
    root, chance = tmp_path / "root", random.Random(round_)
    stays, dies = in_a_process(root, SEEDS), in_a_process(root, SEEDS)
    dies.join(chance.uniform(0.1, 0.5) * seconds)
    dies.kill()
    dies.join()
    again = in_a_process(root, SEEDS)
    for process in (stays, again):
        process.join()
    assert (dies.exitcode, stays.exitcode, again.exitcode) == (-signal.SIGKILL, 0, 0)
    assert not wrong(root, expected)
    # They have shared the work: whoever was not killed has left none of it to the other.
    leases = [
        json.loads(content) for key, content in files(root).items() if key.endswith("lease.json")
    ]
    assert len({lease["driver"] for lease in leases}) > 1
    assert len(leases) <= 2 * SEEDS + 2
