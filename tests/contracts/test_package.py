"""What is built from this checkout and installed elsewhere is whole, and runs."""

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from orchestrator.cli.exit_codes import DONE, INCOMPLETE
from tests.orchestrator.conftest import environment

HOME = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())
PACKAGES = ("trainers", "ablations", "dashboards", "orchestrator")
SOURCES = (*PACKAGES, "pyproject.toml", *PROJECT["project"]["license-files"],
           PROJECT["project"]["readme"])  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a wheel of this checkout is unpacked, as an installer does."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    # A copy, since building leaves folders beside the sources.
    for name in SOURCES:
        copy = shutil.copytree if (HOME / name).is_dir() else shutil.copy
        copy(HOME / name, source / name)
    subprocess.run(
        [sys.executable, "-c", "from setuptools import build_meta as b; b.build_wheel('dist')"],
        cwd=source, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = (source / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(target)
    return target


@pytest.fixture
def dinolab(installed, tmp_path):
    """Runs the installed `dinolab` in an empty folder: its output."""

    def call(*arguments, code=DONE):
        program = (
            "import orchestrator.cli.entry as e, pathlib, sys;"
            f"assert pathlib.Path(e.__file__).is_relative_to({str(installed)!r}), e.__file__;"
            "sys.argv[0] = 'dinolab'; e.main()"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            cwd=tmp_path, env=environment(PYTHONPATH=str(installed)),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == code, ran.stderr
        return ran.stdout

    return call


def test_every_file_of_the_packages_is_in_the_wheel(installed):
    for package in PACKAGES:
        for file in (HOME / package).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert (installed / file.relative_to(HOME)).is_file(), file.relative_to(HOME)
        assert (installed / package / "py.typed").is_file()


def test_the_wheel_holds_its_licence_and_its_command(installed):
    (about,) = installed.glob("dinolab-*.dist-info")
    assert "License-Expression: Apache-2.0" in (about / "METADATA").read_text()
    assert "Apache License" in (about / "licenses" / "LICENSE").read_text()
    assert "CC BY 2.0" in (about / "licenses" / "NOTICE").read_text()
    assert "dinolab = orchestrator.__main__:main" in (about / "entry_points.txt").read_text()


def test_the_installed_command_says_its_version(dinolab):
    assert dinolab("--version") == f"dinolab {PROJECT['project']['version']}\n"


@pytest.mark.slow
def test_the_installed_command_lists_and_plans_its_studies(dinolab):
    assert "why_cls_is_global" in dinolab("list", "studies")
    assert "digits_tiny" in dinolab("list", "recipes")
    assert "study demo: recipe digits_tiny" in dinolab("plan", "demo", "--tflops", 1)


@pytest.mark.slow
def test_the_installed_command_writes_the_report_of_a_run_folder(dinolab, tmp_path):
    kept = HOME / "docs" / "why_cls_is_global-small" / "study.lock.json"
    content = json.loads(kept.read_text())
    stated = content["resolved"]
    # Two arms with no runs and no hypotheses: a page with a table, and no figure to wait for.
    arms = list(stated["arms"])[:2]
    stated.update(arms={arm: stated["arms"][arm] for arm in arms}, seeds=stated["seeds"][:2])
    stated.update(hypotheses={}, claims={}, gates={})
    folder = tmp_path / "kept" / "studies" / kept.parent.name
    folder.mkdir(parents=True)
    (folder / "study.lock.json").write_text(json.dumps(content))
    assert "report: " in dinolab("report", folder, code=INCOMPLETE)
    assert "<html" in (folder / "report.html").read_text()


TINY = """
name: tiny
recipe: digits_tiny
seeds: 1
set:
  {steps: 2, evaluation.every: 2, log_every: 1, batch_size: 8, evaluation.probes: false,
   evaluation.globality_images: 4, evaluation.globality_probe_images: 4,
   evaluation.causal_images: 0}
arms: [cls_position_none]
hypotheses:
  same: {metric: knn/cls_top1, contrast: [cls_position_none, baseline], direction: holds,
         smallest_effect: 0.05}
"""


@pytest.mark.slow
def test_the_installed_command_runs_a_study(dinolab, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    out = dinolab("run", "tiny.yaml")
    assert "2 runs" in out
    assert "INCONCLUSIVE" in out
    folder = tmp_path / "runs" / "studies" / "tiny"
    results = [
        json.loads(path.read_text()) for path in (tmp_path / "runs").glob("trials/*/result.json")
    ]
    assert [(result["status"], result["step"]) for result in results] == [("finished", 2)] * 2
    assert pq.read_table(folder / "results.parquet").num_rows > 0
    assert (folder / "report.html").is_file()


def test_the_citation_is_of_this_version_and_licence():
    cited = yaml.safe_load((HOME / "CITATION.cff").read_text())
    project = PROJECT["project"]
    assert cited["version"] == project["version"]
    assert cited["license"] == project["license"]
    assert [author["name"] for author in cited["authors"]] == [
        a["name"] for a in project["authors"]
    ]
