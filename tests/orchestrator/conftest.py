"""Studies run as a user runs them: by the command, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from orchestrator.driver.cluster import Cluster

MINI = """
name: mini
recipe: digits_tiny
seeds: 2
set:
  {steps: 24, evaluation.every: 12, log_every: 4, checkpoint_every: 8, batch_size: 16,
   evaluation.globality_images: 16, evaluation.globality_probe_images: 8,
   evaluation.causal_images: 0, evaluation.probes: false}
arms:
  - cls_position_none
  - loss_on_patches
hypotheses:
  none_is_equivalent:
    metric: globality/contrast/gyration
    contrast: [cls_position_none, baseline]
    direction: holds
    smallest_effect: 0.05
"""


def baseline_alone(name: str, *, seeds: int = 1, resources: str = "{}", **knobs: object) -> str:
    """A study of the baseline at some seeds, evaluated at its ends alone, and hardly."""
    steps = knobs["steps"]
    given = ", ".join(f"{knob}: {value}" for knob, value in knobs.items())
    return f"""
name: {name}
recipe: digits_tiny
seeds: {seeds}
set:
  {{{given}, evaluation.every: {steps}, batch_size: 16,
   evaluation.globality_images: 16, evaluation.globality_probe_images: 8,
   evaluation.causal_images: 0, evaluation.probes: false}}
resources: {resources}
arms: []
"""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what points to servers or clusters.

    Ray's workers get no less of the machine than the tests beside them.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "DINOLAB"))}
    return {**kept, "RAY_worker_niceness": "0", **changes}


def start(*arguments: object, **changes: str) -> subprocess.Popen[str]:
    """`dinolab` with these arguments, its output to be read as it comes."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "orchestrator", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**changes),
    )


def dinolab(*arguments: object, **changes: str) -> tuple[int, str]:
    """Exit code and output of `dinolab` with these arguments."""
    with start(*arguments, **changes) as process:
        output, _ = process.communicate(timeout=240)
    return process.returncode, output


HARDLY_EVALUATED = [
    "--set", "evaluation.globality_images=4", "--set", "evaluation.globality_probe_images=4",
    "--set", "evaluation.causal_images=0", "--set", "evaluation.probes=false",
]  # fmt: skip
"""Options of a run that is for something else than what is measured of it."""


@pytest.fixture(autouse=True)
def _no_ray_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray that starts while a command is refused ends with its process: here that goes on."""
    monkeypatch.setattr(Cluster, "start", lambda _: None)


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "mini.yaml"
    path.write_text(MINI)
    return path


TWO_NODES = """
import sys
from ray.cluster_utils import Cluster
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
nodes.add_node(num_cpus=1)
nodes.wait_for_nodes()
print("address", nodes.address, flush=True)
sys.stdin.read()
nodes.shutdown()
"""


class Nodes:
    """A Ray cluster that a script has made, which prints its address, and an answer to each line.

    A context manager. It lies in a process of its own: Ray leaves warnings about its processes.
    """

    def __init__(self, script: str, **changes: str) -> None:
        """With these variables changed in its environment."""
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(**changes),
        )
        self.address = self._answer("address")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=120)

    def tell(self, what: str) -> str:
        """Have the script do something; what it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._answer("done")

    def _answer(self, start: str) -> str:
        assert self._process.stdout is not None
        answers = (line for line in self._process.stdout if line.startswith(start))
        return next(answers).removeprefix(start).strip()


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Address of a Ray cluster of two nodes, shared by all studies that need none of their own."""
    with Nodes(TWO_NODES) as nodes:
        yield nodes.address


@pytest.fixture(scope="session")
def finished(
    mini: Path, cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The run root of a study that the cluster finished, and what the command printed."""
    root = tmp_path_factory.mktemp("root") / "runs"
    code, output = dinolab("run", mini, "--root", root, RAY_ADDRESS=cluster)
    assert code == 0, output
    return root, output
