"""What stands in the way of a Ray is one line before a study starts."""

import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from orchestrator.driver import cluster
from orchestrator.driver.cluster import SOCKET_PATH_BYTES, check_cluster
from tests.orchestrator.conftest import dinolab, environment
from trainers.errors import InputError


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:8265", "for `dinolab submit STUDY --address http://127.0.0.1:8265`"),
        ("ray://127.0.0.1:10001", "Ray Client"),
        ("127.0.0.1:9", "nothing answers there .Connection refused"),
        ("no-such-host.invalid:6379", "nothing answers there"),
        ("a..b:6379", "nothing answers there"),
        (f"{'a' * 64}.invalid:6379", "nothing answers there"),
        ("127.0.0.1:99999", "nothing answers there"),
        ("head", "Invalid address format: head"),
    ],
)
def test_an_address_without_a_cluster_is_one_line(monkeypatch, address, said):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=said) as caught:
        check_cluster()
    assert str(caught.value).startswith(f"RAY_ADDRESS={address} cannot be used: ")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_port_that_says_nothing_does_not_answer(monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_WITHIN_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(InputError, match="no cluster answers within 2 s"):
            check_cluster()


def test_our_own_sockets_fit_below_a_long_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    long = tmp_path / ("x" * 53)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    folder = cluster._scratch()
    session = "session_2026-01-01_00-00-00_000000_4194304"
    path = f"{folder}/dinolab-12345678/{session}/sockets/plasma_store"
    assert len(path) <= SOCKET_PATH_BYTES
    check_cluster()


def commands():
    """What runs here, as the words of its command."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has ended
            continue


@pytest.mark.slow
def test_a_study_that_is_refused_while_ray_starts_leaves_nothing(mini, tmp_path):
    # A short path, since sockets lie in it.
    with tempfile.TemporaryDirectory() as scratch:
        root, nowhere = tmp_path / "runs", tmp_path / "nowhere"
        code, output = dinolab("run", mini, "--root", root, "--data", nowhere, TMPDIR=scratch)
        assert code == 2
        lines = [one for one in output.splitlines() if not one.startswith("note: ")]
        assert len(lines) == 1, output
        assert str(nowhere) in lines[0]
        assert [path for path in root.rglob("*") if path.is_file()] == []
        assert list(Path(scratch).iterdir()) == []
        until = time.monotonic() + 20
        while left := [one for one in commands() if f"--temp-dir={scratch}/" in one]:
            assert time.monotonic() < until, left


def test_what_leads_to_the_first_trial_loads_no_mlflow_and_no_compiler():
    loaded = (
        "import orchestrator.driver.launch, orchestrator.driver.worker, sys; print(*sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, env=environment(),
        timeout=200, check=True,
    ).stdout.split()  # fmt: skip
    assert "torch" in said
    slow = {"mlflow", "plotly", "torch._dynamo", "torch.distributed.tensor", "sympy", "triton"}
    assert slow & set(said) == set()


# References in cycles, given up one by one from when Ray counts as left until it is.
COLLECTS_WHILE_RAY_IS_LEFT = """
import gc
from orchestrator.driver.cluster import Cluster
with Cluster() as cluster:
    cluster.connected()
    import ray
    worker = ray._private.worker.global_worker
    held = []
    for number in range(3000):
        cycle = [ray.put(number)]
        cycle.append(cycle)
        held.append(cycle)
    gc.collect()
    cluster.leave()
    while cluster._thread.is_alive():
        if held and not worker.connected:
            held.pop()
        others = [[] for _ in range(1000)]
print("left", len(held) < 3000, gc.isenabled())
"""


@pytest.mark.slow
def test_what_is_collected_while_ray_is_left_does_not_end_the_process():
    done = subprocess.run(
        [sys.executable, "-c", COLLECTS_WHILE_RAY_IS_LEFT],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "left True True\n")
