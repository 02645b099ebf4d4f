"""`python -m trainers`: alone, with a launcher, again, and with bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from trainers import __main__ as command
from trainers.config import TrainConfig, override
from trainers.config.recipe import knobs_given, recipe
from trainers.errors import ConfigError

SMALL = [
    "--set", "steps=4", "--set", "model.depth=2", "--set", "evaluation.globality_layers=[1]",
    "--set", "evaluation.every=4", "--set", "optimizer.learning_rate=1e-3",
]  # fmt: skip


def results(root):
    return {
        path.parent.name: json.loads(path.read_text()) for path in root.glob("trials/*/result.json")
    }


def paint(folder):
    for number in range(12):
        place = folder / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(place)
    return ["--set", f"data.source={folder}", "--set", "batch_size=4"]


@pytest.mark.slow
@pytest.mark.parametrize(("side", "notes"), [(0, 0), (80, 1)])
def test_a_run_that_squeezes_its_images_says_what_that_costs(tmp_path, capsys, side, notes):
    for number in range(12):
        place = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + number, 50), (20 * number, 0, 0)).save(place)
    arguments = [
        "digits_tiny", *SMALL, "--set", "steps=1", "--set", f"data.source={tmp_path}/pictures",
        "--set", "batch_size=4", "--set", f"data.image_size={side}", f"--root={tmp_path}/runs",
    ]  # fmt: skip
    assert command.run(arguments) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(lines) == notes
    assert all("squares of 80 pixels" in line for line in lines)


@pytest.mark.slow
def test_it_trains_a_recipe_and_a_second_time_nothing(tmp_path, capsys):
    arguments = ["digits_tiny", *SMALL, "--root", str(tmp_path)]
    assert command.run(arguments) == 0
    out = capsys.readouterr().out
    assert "step 4/4  loss/total" in out
    assert out.splitlines()[-2] == "finished"
    before = results(tmp_path)
    (result,) = before.values()
    assert (result["status"], result["step"], result["workers"]) == ("finished", 4, 1)
    assert command.run(arguments) == 0
    assert results(tmp_path) == before


@pytest.mark.slow
def test_a_run_in_epochs_is_that_of_as_many_steps(tmp_path, capsys):
    # 1,438 digits are trained on.
    for length in ("steps=1 epochs", "steps=4"):
        arguments = ["digits_tiny", *SMALL, "--set", length, "--set", "batch_size=360"]
        assert command.run([*arguments, "--root", str(tmp_path)]) == 0
    assert len(results(tmp_path)) == 1
    assert capsys.readouterr().out.count("step 4/4") == 1


def test_data_are_recorded_by_their_absolute_path_and_a_tilde_is_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "pictures")
    arguments = [
        "digits_tiny", *SMALL, "--set", "steps=1", "--set", "data.source=pictures",
        "--set", "batch_size=4", "--root=~/runs",
    ]  # fmt: skip
    assert command.run(arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "pictures"]
    (config,) = tmp_path.glob("home/runs/trials/*/config.json")
    assert json.loads(config.read_text())["data"]["source"] == str(tmp_path / "pictures")


@pytest.mark.slow
def test_a_launcher_starts_two_workers_that_see_the_same(tmp_path, capsys):
    arguments = ["digits_tiny", *SMALL, *paint(tmp_path / "pictures")]
    assert command.run([*arguments, "--root", str(tmp_path / "one")]) == 0
    launched = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
            "--standalone", "-m", "trainers", *arguments,
            "--root", str(tmp_path / "two"),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr
    (alone,), (together,) = (results(tmp_path / name).values() for name in ("one", "two"))
    assert together["workers"] == 2
    assert together["chain"] == alone["chain"]
    assert together["data"] == alone["data"]
    (index,) = (tmp_path / "two" / "data").iterdir()
    assert "part-00000.arrow" in [path.name for path in index.iterdir()]


def test_a_recipe_may_be_a_file(tmp_path):
    config = override(TrainConfig(), {"seed": 7})
    (tmp_path / "config.json").write_text(config.model_dump_json())
    (tmp_path / "mine.py").write_text(
        "from trainers.config import TrainConfig, override\n"
        "RECIPE = override(TrainConfig(), {'seed': 7})\n"
    )
    assert recipe(str(tmp_path / "config.json")) == recipe(str(tmp_path / "mine.py")) == config


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("digit_tiny", None, "no such recipe; did you mean digits_tiny?"),
        ("gone.json", None, "cannot be read: No such file"),
        ("bad.json", '{"steps": 0}', "steps: input should be greater than or equal to 1"),
        ("bad.py", "RECIPE = 3", "must set RECIPE to a TrainConfig, got 3"),
        ("worse.py", "RECIPE = (", "is not Python"),
    ],
)
def test_a_bad_recipe_is_one_clear_line(name, content, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_text(content)
    monkeypatch.setattr(sys, "argv", ["trainers", name])
    assert command.main() == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_values_are_written_as_people_write_them():
    pairs = ["a=1e-3", "b=2", "c=[0.1, 2e-1]", "d=none", "e=true"]
    assert knobs_given(pairs) == {"a": 0.001, "b": 2, "c": [0.1, 0.2], "d": "none", "e": True}
    with pytest.raises(ConfigError, match="must be KNOB=VALUE"):
        knobs_given(["steps"])


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_published_recipes_have_the_published_shapes(size):
    config = recipe(f"dino_vit_{size}_16")
    assert config.augment.local_crops == (10 if size == "base" else 8)
    assert config.model.width == {"tiny": 192, "small": 384, "base": 768}[size]


@pytest.mark.parametrize(
    ("workers", "arguments", "line"),
    [
        ("3", [], "batch_size 32 does not divide by 3 workers; choose a number that divides it"),
        ("8", ["--set", "compute.accumulate=5"], "compute.accumulate 5 is more than the 4 images"),
        ("1", ["--set", "compute.accumulate=33"], "compute.accumulate must be 1..32 (batch_size)"),
        ("1", ["--device", "cuda"], "--device cuda: PyTorch finds no GPU here; use cpu or auto"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_anything_is_read_or_written(
    workers, arguments, line, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(command, "open_images", None)
    monkeypatch.setattr(command.World, "launched", None)
    monkeypatch.setenv("WORLD_SIZE", workers)
    command_line = ["trainers", "digits_tiny", "--root", str(tmp_path / "runs"), *arguments]
    monkeypatch.setattr(sys, "argv", command_line)
    assert command.main() == 2
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
