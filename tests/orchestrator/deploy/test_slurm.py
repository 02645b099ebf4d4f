"""Jobs of Slurm and SkyPilot: run here, with programs that stand for those of the cluster."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orchestrator.cli.exit_codes import FAILED, INCOMPLETE, INTERRUPTED
from tests.orchestrator.conftest import environment
from tests.orchestrator.deploy.conftest import AWKWARD, written

BATCH = ("slurm", "slurm-srun")
SCONTROL = '#!/bin/bash\n[[ "$1 $2" == "show hostnames" ]] && tr , "\\n" <<<"$3"\n'
SRUN = f"""#!{sys.executable}
# Starts a program of the second machine here, where its ports are taken: they move by 512.
import os, re, sys
words, host = sys.argv[1:], None
while words[0].startswith("--"):
    name, _, value = words.pop(0).partition("=")
    host = value if name == "--nodelist" else host
if host == "two":
    port = re.compile("(--[a-z-]+-port=)([0-9]+)")
    words = [port.sub(lambda found: found[1] + str(int(found[2]) + 512), one) for one in words]
os.execvp(words[0], words)
"""
SAYS_ITS_WORDS = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"


@pytest.fixture
def job(tmp_path, programs):
    """Starts the job of a kind as its first machine does, its output to be read."""
    started = []

    def start(kind, given, **texts):
        path = tmp_path / "job.sh"
        path.write_text(written(kind, **given))
        folder = programs(scontrol=SCONTROL, srun=SRUN, **texts)
        process = subprocess.Popen(
            ["bash", path], cwd=tmp_path, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment(
                PATH=os.pathsep.join([str(folder), str(Path(sys.executable).parent),
                                      os.environ["PATH"]]),
                SLURM_JOB_ID=str(os.getpid()), SLURM_JOB_NODELIST="one,two",
                RAY_AUTH_TOKEN="a" * 64,
            ),
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", BATCH)
def test_bash_can_read_it(kind):
    subprocess.run(["bash", "-n"], input=written(kind, gpus=8), text=True, check=True)


@pytest.mark.parametrize("part", ["setup", "run"])
def test_bash_can_read_what_skypilot_runs(part):
    text = yaml.safe_load(written("skypilot", gpus=8))[part]
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("kind", BATCH)
def test_shellcheck_finds_nothing(kind):
    subprocess.run(["shellcheck", "-"], input=written(kind, gpus=8), text=True, check=True)


@pytest.mark.parametrize("kind", BATCH)
def test_slurm_is_asked_for_the_machines(kind):
    lines = written(kind, nodes=3, gpus=8, cpus=64, memory=500, hours=48).splitlines()
    asked = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    assert {"--nodes=3", "--ntasks-per-node=1", "--gpus-per-node=8", "--cpus-per-task=64",
            "--mem=500G", "--time=48:00:00", "--requeue"} <= set(asked)  # fmt: skip
    # sbatch stops looking at the first line that is a command.
    last = max(number for number, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[:last])
    assert not re.search("gpus-per-node", written(kind, gpus=0))


# `python` answers for Ray, whose import takes seconds.
PYTHON = "#!/bin/bash\n[[ $1 == -c ]] && echo 127.0.0.1\nexit 0\n"
RAY = f"#!/bin/bash\n[[ $1 == start ]] && exec sleep 6{os.getpid()}\nexit 0\n"


def test_symmetric_run_gets_the_study_and_the_root_as_they_are(job):
    given = {"root": AWKWARD, "study": "my 'own' $(touch made).yaml", "cpus": 4}
    process = job("slurm", given, python=PYTHON, ray=SAYS_ITS_WORDS)
    words = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 0
    separator = words.index("--")
    assert words[separator + 1 :] == [
        "dinolab", "run", given["study"], "--root", AWKWARD, "--quiet",
    ]  # fmt: skip
    assert words[0] == "symmetric-run"
    assert words[words.index("--min-nodes") + 1] == "2"
    # What `ray symmetric-run` refuses.
    refused = {"--head", "--node-ip-address", "--port", "--block"}
    assert not refused & {word.split("=")[0] for word in words[:separator]}


def test_the_study_and_the_root_get_as_they_are_to_plain_srun_and_its_code_back(job, tmp_path):
    given = {"root": AWKWARD, "study": "my 'own' $(touch made).yaml"}
    dinolab = SAYS_ITS_WORDS + f"sys.exit({INCOMPLETE})\n"
    process = job("slurm-srun", given, python=PYTHON, ray=RAY, dinolab=dinolab)
    words = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == INCOMPLETE
    assert words == ["run", given["study"], "--root", AWKWARD, "--quiet"]
    assert not (tmp_path / "made").exists()


def alive(name):
    """The command lines that hold `name` of all processes that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # What has ended meanwhile.
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if name in line]


def test_a_signal_ends_the_study_in_order_and_then_ray(job):
    dinolab = f"""#!{sys.executable}
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit({INTERRUPTED}))
print("begun", flush=True)
signal.pause()
"""
    process = job("slurm-srun", {"nodes": 2}, python=PYTHON, ray=RAY, dinolab=dinolab)
    assert process.stdout.readline() == "begun\n"
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert not alive(f"sleep 6{os.getpid()}")


def test_a_head_that_does_not_start_ends_the_job(job):
    process = job("slurm-srun", {}, python=PYTHON, ray="#!/bin/bash\nexit 1\n", dinolab=RAY)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == FAILED
    assert output == "the head of Ray has ended\n"


NODES = f"""#!{sys.executable}
import json, os, ray
ray.init(log_to_driver=False, logging_level="error")
print("nodes", json.dumps(ray.nodes()))
print("mode", os.environ["RAY_AUTH_MODE"])
"""


@pytest.mark.slow
def test_two_nodes_of_ray_are_there_on_the_ports_that_the_job_says_when_the_study_starts(job):
    process = job("slurm-srun", {"cpus": 1}, dinolab=NODES)
    base = 10000 + os.getpid() % 44 * 512
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "\n2 nodes of Ray\n" in output
    assert "mode token" in output
    (line,) = [line for line in output.splitlines() if line.startswith("nodes ")]
    nodes = json.loads(line.removeprefix("nodes "))
    ports = [
        (one["NodeManagerPort"], one["ObjectManagerPort"], one["MetricsExportPort"])
        for one in nodes
    ]
    wanted = [(start + 1, start + 2, start + 6) for start in (base, base + 512)]
    assert sorted(ports) == wanted
    assert [one["Resources"]["CPU"] for one in nodes] == [1.0, 1.0]
    assert not alive(f"/tmp/dinolab-{os.getpid()}-")
    for number in (0, 1):
        shutil.rmtree(f"/tmp/dinolab-{os.getpid()}-{number}")
