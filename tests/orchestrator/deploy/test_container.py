"""The container file: not root, the lock's versions, and all of dinolab."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from orchestrator.deploy.values import Kind
from tests.orchestrator.deploy.conftest import documents, written

HOME = Path(__file__).parent.parent.parent.parent
TEXT = written("container")
STEPS = [
    tuple(line.split(None, 1))
    for line in re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", TEXT)).splitlines()
    if line.strip()
]
"""its instructions, each with what follows it"""


def of(instruction):
    return [rest for name, rest in STEPS if name == instruction]


def test_it_does_not_run_as_root_and_its_user_is_the_one_of_the_pods():
    assert of("USER") == ["1000:1000"]
    assert [name for name, _ in STEPS if name in ("RUN", "COPY", "USER")][-1] == "USER"
    (job,) = documents("kuberay-job")
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["securityContext"]
    assert of("USER") == [f"{pod['runAsUser']}:{pod['runAsGroup']}"]


def test_every_version_is_the_locks_and_the_base_is_named_with_its_version():
    installs = [run for run in of("RUN") if "pip install" in run]
    assert len(installs) == 2
    assert "--requirement /opt/dinolab/requirements.lock" in installs[0]
    assert "--no-deps --no-build-isolation /opt/dinolab" in installs[1]
    assert all("--no-cache-dir" in run for run in installs)
    (base,) = of("ARG")
    assert re.fullmatch(r"BASE=python:3\.11-slim-\w+", base)
    # The lock is of this Python.
    assert "for Python 3.11 on Linux" in (HOME / "requirements.lock").read_text().splitlines()[0]


def test_all_that_is_copied_is_in_the_checkout_and_all_packages_are_copied():
    copied = {source for words in of("COPY") for source in words.split()[:-1]}
    assert all((HOME / source).exists() for source in copied)
    project = tomllib.loads((HOME / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {f"{package.removesuffix('*')}/" for package in packages} <= copied
    named = {project["project"]["readme"], *project["project"]["license-files"]}
    assert {"requirements.lock", "pyproject.toml", *named} <= copied
    # ADD fetches and unpacks; only COPY takes what is there.
    assert not of("ADD")


def test_package_lists_are_gone_and_nothing_is_installed_that_is_only_recommended():
    (run,) = [run for run in of("RUN") if "apt-get" in run]
    assert "--no-install-recommends" in run
    assert "rm -rf /var/lib/apt/lists/*" in run
    assert "sudo" not in TEXT


def test_its_command_is_a_list_of_words():
    (command,) = of("CMD")
    assert json.loads(command) == ["dinolab", "--help"]


@pytest.mark.parametrize("kind", Kind)
def test_no_file_names_a_registry_or_holds_a_secret(kind):
    text = written(kind)
    # What has a dot before its first slash would be the host of a registry.
    assert not re.search(r"(?:image|BASE)\S*\s*[:=]\s*\"?[\w-]+\.[\w.-]+/", text)
    assert "index-url" not in text
    assert not re.search(r"(?i)(?:AKIA|BEGIN [A-Z ]*PRIVATE KEY|password)", text)
    for name in re.findall(r"RAY_AUTH_TOKEN=(\S*)", text):
        assert name.startswith(("${RAY_AUTH_TOKEN:-$(python", "$(python"))
