"""Two drivers on one root: every interleaving ends with one result a trial, as if undisturbed."""

import os

import pytest

from tests.reliability.checker import problems
from tests.reliability.simulation import simulate, undisturbed

SEEDS = int(os.environ.get("DINOLAB_SOAK", "0")) or 150
"""Interleavings; `make soak` asks for 10,000."""


@pytest.mark.parametrize("block", range(10))
def test_any_interleaving_of_two_drivers_and_three_workers_ends_with_one_result_a_trial(block):
    expected = {key: undisturbed(key) for key in ("t0", "t1", "t2")}
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        found = problems(simulate(seed), expected)
        assert not found, f"seed {seed}: {found}"
