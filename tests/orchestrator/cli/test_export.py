"""`dinolab export` as a user runs it."""

import json
import subprocess
import sys

import pytest
import torch

from orchestrator.cli import entry as cli
from tests.orchestrator.conftest import environment


def test_a_run_is_exported_and_the_line_that_opens_it_printed(dinolab, run, tmp_path):
    timm = pytest.importorskip("timm")
    code, out, err = dinolab("export", run({}), "--to", "timm", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "teacher of run, step 0 of 600" in out
    (line,) = (line for line in out.splitlines() if line.startswith("opens with timm."))
    opened = eval(line.removeprefix("opens with "), {"timm": timm})
    assert opened.forward_features(torch.zeros(1, 3, 16, 16)).shape == (1, 17, 48)


@pytest.mark.parametrize(
    ("change", "arguments", "line"),
    [
        ({}, ["--to", "timms"], "'timms' is not one of 'timm', 'huggingface', 'safetensors'"),
        ({}, ["--to", "timm", "--network", "both"], "'both' is not one of 'teacher', 'student'"),
        ({"model.cls_position": "random"}, ["--to", "timm"], "model.cls_position 'random' has no"),
    ],
)
def test_what_cannot_be_exported_is_one_line(dinolab, run, tmp_path, change, arguments, line):
    code, out, err = dinolab("export", run(change), "--out", tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert line in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_is_one_line(dinolab, tmp_path):
    code, _, err = dinolab("export", tmp_path, "--to", "timm", "--out", tmp_path / "out")
    assert code == 2
    assert "holds no checkpoint" in err


@pytest.mark.slow
def test_exporting_needs_neither_ray_nor_mlflow(run, tmp_path):
    script = (
        "import sys; sys.modules.update(ray=None, mlflow=None, timm=None, transformers=None); "
        "from orchestrator.cli.entry import main; main()"
    )
    arguments = ["export", run({}), "--to", "huggingface", "--out", tmp_path / "out"]
    subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], check=True, env=environment()
    )
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()


def test_export_is_a_command():
    assert "export" in cli.COMMANDS


@pytest.mark.slow
def test_measure_finds_in_every_export_the_numbers_of_the_run(dinolab, run, tmp_path):
    pytest.importorskip("timm")
    folder = run(
        {"model.registers": 1, "optimizer.warmup_steps": 1, "model.initial_deviation": 0.3}
    )
    measured = {}
    for form in ("run", "timm", "huggingface", "safetensors"):
        model = folder if form == "run" else tmp_path / form
        if form != "run":
            assert dinolab("export", folder, "--to", form, "--out", model)[0] == 0
        out = tmp_path / f"{form} measured"
        code, _, err = dinolab(
            "measure", model, "--data", "photographs", "--limit", "4", "--causal-images", "2",
            "--threads", "1", "--root", tmp_path / "runs", "--out", out,
        )  # fmt: skip
        assert (code, err) == (0, "")
        measured[form] = json.loads((out / "summary.json").read_text())["metrics"]
    assert len(measured["run"]) > 20
    for form in ("timm", "huggingface", "safetensors"):
        assert measured[form] == pytest.approx(measured["run"], rel=1e-3, abs=1e-4), form
