"""Two drivers, each a process, share the trials of one root; one of them dies at any time."""

import os
import random
import signal
import time

import pytest

from tests.reliability.little import files, in_a_process, measured, wrong

pytestmark = pytest.mark.slow

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
    # Together they take about half as long as one.
    dies.join(chance.uniform(0.05, 0.4) * seconds)
    dies.kill()
    dies.join()
    again = in_a_process(root, SEEDS)
    for process in (stays, again):
        process.join()
    # On a busy machine all may be done before it is killed.
    assert dies.exitcode in (-signal.SIGKILL, 0)
    assert (stays.exitcode, again.exitcode) == (0, 0)
    assert not wrong(root, expected)
    leases = [key for key in files(root) if key.endswith("lease.json")]
    assert len(leases) <= 2 * SEEDS + 2
