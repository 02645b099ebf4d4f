"""What is listed and written anew: completion, studies by name, knobs of a recipe, run roots."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from orchestrator.cli import entry
from orchestrator.cli.listing import Listing
from orchestrator.cli.new import Kind
from tests.orchestrator.conftest import environment
from trainers.config import TrainConfig, diff
from trainers.config.recipe import recipe

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.mark.slow
def test_a_packaged_study_is_run_by_its_name_unless_a_file_of_that_name_exists(
    dinolab, mini, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    code, out, err = dinolab("plan", "demo", "--tflops", 1)
    assert code == 0, err
    assert "study demo: recipe digits_tiny" in out
    (tmp_path / "demo").rmdir()
    (tmp_path / "demo").write_text(mini.read_text())
    code, out, err = dinolab("plan", "demo", "--tflops", 1)
    assert code == 0, err
    assert "study mini: recipe digits_tiny" in out


def test_the_version_is_that_of_the_project_and_needs_no_installation(dinolab):
    project = tomllib.loads(PROJECT.read_text())["project"]
    assert dinolab("--version") == (0, f"dinolab {project['version']}\n", "")


def test_another_project_around_the_package_does_not_give_its_version(monkeypatch, tmp_path):
    before = entry.version()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "9.9"\n')
    monkeypatch.setattr(entry, "__file__", str(tmp_path / "orchestrator" / "cli" / "entry.py"))
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"installed {name}")
    assert entry.version() == "installed dinolab"
    (tmp_path / "pyproject.toml").write_text(PROJECT.read_text())
    assert entry.version() == before


@pytest.mark.parametrize(
    ("words", "offered"),
    [("list ", {kind.value for kind in Listing}), ("new ", {kind.value for kind in Kind})],
)
def test_completion_knows_what_can_be_listed_and_written(words, offered):
    completed = subprocess.run(
        [sys.executable, "-m", "orchestrator"],
        env=environment(_DINOLAB_COMPLETE="complete_bash", COMP_WORDS=f"dinolab {words}",
                        COMP_CWORD="2"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert set(completed.stdout.split()) == offered


def test_knobs_are_listed_with_the_values_of_a_recipe_and_what_it_changes_marked(dinolab):
    code, out, err = dinolab("list", "knobs", "--recipe", "digits_tiny")
    assert code == 0, err
    cells = {row[1].strip(): row[2].strip() for line in out.splitlines()
             if len(row := line.split("│")) > 2}  # fmt: skip
    assert cells["augment.local_crops"].startswith("* 1")
    assert cells["batch_size"] == "32"
    marked = {name for name, value in cells.items() if name and value.startswith("*")}
    assert marked == set(diff(TrainConfig(), recipe("digits_tiny")))


def test_a_new_study_can_be_planned_as_it_was_written(dinolab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = dinolab("new", "study", "my-first", "--out", "my studies")
    assert code == 0, err
    assert "change it, then `dinolab run 'my studies/my-first.yaml'`" in out
    code, out, err = dinolab("plan", "my studies/my-first.yaml", "--tflops", 1)
    assert code == 0, err
    assert "24 runs, 0 finished" in out
    assert dinolab("new", "study", "my-first", "--out", "my studies")[0] == 2


def test_a_root_is_listed_where_it_is_named_and_refused_where_it_is_unused(
    dinolab, finished, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished[0], tmp_path / "runs")
    listed = "Studies in "
    assert listed not in dinolab("list", "studies")[1]
    assert listed in dinolab("list", "studies", "--root", "runs")[1]
    monkeypatch.setenv("DINOLAB_ROOT", "runs")
    assert listed in dinolab("list", "studies")[1]
    monkeypatch.setenv("DINOLAB_ROOT", "nowhere")
    code, out, err = dinolab("list", "studies")
    assert (code, err) == (0, "")
    assert "demo" in out
    assert dinolab("list", "knobs")[0] == 0
    code, _, err = dinolab("list", "knobs", "--root", "runs")
    assert code == 2
    assert "list knobs: --root belongs to `list studies` and `list runs` alone" in err


def test_studies_and_single_runs_of_a_root_are_listed_with_how_far_they_are(
    dinolab, finished, tmp_path
):
    root = tmp_path / "runs"
    shutil.copytree(finished[0], root)
    first, second, third, *_ = sorted((root / "trials").iterdir())
    (first / "result.json").unlink()
    (second / "result.json").unlink()
    (second / "attempts" / "0001" / "failure.json").write_text('{"message": "out of memory"}')
    torn = root / "studies" / "torn" / "registrations" / "0001.json"
    torn.parent.mkdir(parents=True)
    torn.write_text("{")
    for number, one in enumerate((first, first, third)):  # that no study names
        shutil.copytree(one, root / "trials" / f"{number:016x}")
    for arguments in (("runs",), ("studies",)):
        code, out, err = dinolab("list", *arguments, "--root", root)
        assert code == 0, err
        flat = " ".join(out.split())
        for part in ("3 × 2", "1 failed", "4 finished", "1 missing", "single runs", "2 missing",
                     "damaged"):  # fmt: skip
            assert part in flat
    assert "why_cls_is_global" in out
