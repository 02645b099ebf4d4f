"""A kill at any write of a study leaves a root from which the next run ends as if undisturbed."""

import os
import random
import shutil
import signal

import pytest

from tests.reliability.kills import Kills, changes
from tests.reliability.little import in_a_process, undisturbed_study, wrong

pytestmark = pytest.mark.slow

SAMPLE = None if os.environ.get("DINOLAB_SOAK") else 40
"""Points that are tried, of all there are; `make soak` tries every one."""

BLOCKS, AT_ONCE = 8, 5


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the study comes to, and how many changes of the root that takes."""
    expected, made = undisturbed_study(tmp_path_factory.mktemp("undisturbed"))
    return expected, len(made)


def joined(processes):
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_kill_before_or_after_any_write_leaves_what_ends_equal(undisturbed, tmp_path, block):
    expected, count = undisturbed
    every = [(at, after) for at in range(1, count + 1) for after in (False, True)]
    points = random.Random(0).sample(every, SAMPLE or len(every))[block::BLOCKS]
    for few in (points[n : n + AT_ONCE] for n in range(0, len(points), AT_ONCE)):
        tried(few, tmp_path, expected)


def tried(points, folder, expected):
    """Kill a study at each of the points, each in a root of its own; then run it to the end."""
    roots = [folder / f"{at}-{after}" for at, after in points]
    kills = [
        Kills(root, root.with_suffix(".log"), at, after=after)
        for root, (at, after) in zip(roots, points, strict=True)
    ]
    killed = joined([in_a_process(root, 1, kill) for root, kill in zip(roots, kills, strict=True)])
    assert killed == [-signal.SIGKILL] * len(points)
    finished = joined([in_a_process(root, 1) for root in roots])
    assert finished == [0] * len(points)
    for kill, root in zip(kills, roots, strict=True):
        assert not wrong(root, expected), (changes(kill.log)[-1], kill.after)
        shutil.rmtree(root)
