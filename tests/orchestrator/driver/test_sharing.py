"""How the studies on one cluster divide it."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.driver.sharing import dealt
from tests.orchestrator.conftest import environment


@pytest.mark.parametrize(
    ("seats", "wants", "turn", "expected"),
    [
        (8, {"a": 100, "b": 100}, 0, {"a": 4, "b": 4}),
        (8, {"a": 100, "b": 2}, 0, {"a": 6, "b": 2}),
        (7, {"a": 9, "b": 1, "c": 9}, 0, {"a": 3, "b": 1, "c": 3}),
        (3, {"a": 9, "b": 9}, 0, {"a": 2, "b": 1}),
        (3, {"a": 9, "b": 9}, 1, {"a": 1, "b": 2}),
        (1, {"a": 9, "b": 9}, 4, {"a": 1, "b": 0}),
        (1, {"a": 9, "b": 9}, 5, {"a": 0, "b": 1}),
        (5, {"a": 1, "b": 0}, 0, {"a": 1, "b": 0}),
        (0, {"a": 1}, 0, {"a": 0}),
        (5, {}, 3, {}),
    ],
)
def test_seats_are_dealt_one_at_a_time(seats, wants, turn, expected):
    assert dealt(seats, wants, turn) == expected


@given(
    st.integers(0, 40),
    st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.integers(0, 20), max_size=6),
    st.integers(0, 10**9),
)
def test_shares_are_max_min_fair_and_leave_no_seat_that_is_wanted(seats, wants, turn):
    got = dealt(seats, wants, turn)
    assert sum(got.values()) == min(seats, sum(wants.values()))
    for name, want in wants.items():
        assert 0 <= got[name] <= want
        if got[name] < want:
            assert max(got.values()) - got[name] <= 1


def test_over_as_many_turns_as_drivers_each_has_the_same():
    wants = dict.fromkeys("abc", 9)
    rounds = [dealt(4, wants, turn) for turn in range(3)]
    assert {name: sum(one[name] for one in rounds) for name in wants} == dict.fromkeys("abc", 4)


SHARED = """
import subprocess, sys, time
import ray
from ray.cluster_utils import Cluster
from orchestrator.driver.sharing import Sharing

ANOTHER = '''
import sys, ray
from orchestrator.driver.sharing import Sharing
ray.init(sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
with Sharing(sys.argv[2], lambda: 9, int(sys.argv[3]) or None, print) as sharing:
    sharing.share(4)
    print("told", flush=True)
    sys.stdin.read()
'''

def another(device, most=0):
    process = subprocess.Popen(
        [sys.executable, "-c", ANOTHER, cluster.address, device, str(most)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    assert any(line == "told\\n" for line in process.stdout)
    return process

def comes_to(number):
    until = time.monotonic() + 60
    while (found := sharing.share(4)) != number:
        assert time.monotonic() < until, found
        time.sleep(0.2)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
ray.init(cluster.address, log_to_driver=False, logging_level="CRITICAL")
with Sharing("cpu", lambda: 9, None, print) as sharing:
    assert sharing.share(4) == 4
    with another("gpu") as elsewhere:
        assert sharing.share(4) == 4
        with another("cpu") as killed:
            assert sharing.share(4) == 2
            killed.kill()
        comes_to(4)
        with another("cpu") as ends:
            assert sharing.share(4) == 2
            ends.communicate()
        assert sharing.share(4) == 4
        with another("cpu", most=1) as limited:
            assert sharing.share(4) == 3
            limited.communicate()
        elsewhere.communicate()
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_those_on_other_devices_and_those_that_have_ended_or_died_have_no_share():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SHARED],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    note = "note: 1 other study is at work on this cluster, which is shared"
    assert [line for line in done.stdout.splitlines() if line == note] == [note] * 3, done.stdout
