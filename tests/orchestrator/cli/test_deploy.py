"""The command deploy prints a file and nothing else, or one line on standard error."""

import subprocess
import sys

import pytest

from orchestrator.cli import deploy as command
from orchestrator.cli.exit_codes import BAD_INPUT
from orchestrator.deploy.values import Kind, values_of
from tests.orchestrator.conftest import environment
from tests.orchestrator.deploy.conftest import written


def deploy(*words):
    """What `dinolab deploy` does with these words."""
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", "deploy", *words],
        capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip


def test_the_file_is_all_that_is_printed():
    done = deploy("slurm", "--gpus", "8", "--study", "my study.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == written("slurm", gpus=8, study="my study.yaml")
    assert done.stdout.startswith("#!/bin/bash\n")


@pytest.mark.parametrize(
    ("words", "named"),
    [(["slurm", "--nodes", "0"], "--nodes"), (["slurm", "--root", "here"], "--root"),
     (["container", "--gpus", "1"], "--gpus"), (["nowhere"], "slurm-srun")],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_no_file(words, named):
    done = deploy(*words)
    assert (done.returncode, done.stdout) == (BAD_INPUT, "")
    assert named in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_every_option_reaches_its_value(capsys):
    command.deploy(Kind.RAY_ON_PREMISES, host=["a", "b"], user="me", gpus=2, cpus=3, root="/r",
                   image="i")  # fmt: skip
    assert capsys.readouterr().out == written(
        "ray-on-premises", hosts=["a", "b"], user="me", gpus=2, cpus=3, root="/r", image="i"
    )
    command.deploy(Kind.SKYPILOT, env=["A", "B"], accelerator="H100", gpus=8, memory=99, nodes=3,
                   root="s3://b/r", study="s")  # fmt: skip
    assert capsys.readouterr().out == written(
        "skypilot", environment=["A", "B"], accelerator="H100", gpus=8, memory=99, nodes=3,
        root="s3://b/r", study="s",
    )  # fmt: skip
    command.deploy(Kind.KUBERAY_JOB, hours=2, secret="s", claim="c", queue="q")
    assert capsys.readouterr().out == written(
        "kuberay-job", hours=2, secret="s", claim="c", queue="q"
    )
    command.deploy(Kind.RAY_AWS, region="eu-west-1", machine_image="ami-12345678", root="s3://b/r")
    assert capsys.readouterr().out == written(
        "ray-aws", region="eu-west-1", machine_image="ami-12345678", root="s3://b/r"
    )


def test_nothing_given_is_no_value():
    assert values_of(Kind.SLURM, {}).study == "demo"
