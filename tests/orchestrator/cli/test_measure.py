"""`dinolab measure` as a user runs it: any ViT, one line for what cannot be measured."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from orchestrator.cli import entry as cli
from tests.orchestrator.conftest import environment

timm = pytest.importorskip("timm")

QUICK = ("--data", "digits", "--limit", "4", "--causal-images", "0", "--threads", "1")


@pytest.fixture
def dinolab(monkeypatch, capsys, tmp_path):
    """Runs `dinolab measure` in this process: exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["dinolab", "measure", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "more"),
    [
        ("vit_tiny_patch16_224", 48, ["--causal-images", "2"]),
        ("vit_small_patch14_reg4_dinov2", 42, []),
        ("vit_small_patch16_dinov3", 48, []),
        ("eva02_tiny_patch14_224", 42, ["--layers", "3,4"]),
        ("vit_little_patch16_reg4_gap_256", 48, []),
        ("vit_base_patch16_rope_reg1_gap_256", 48, []),
        ("vit_tiny_r_s16_p8_224", 64, ["--heads", "6"]),
    ],
)
def test_a_timm_vit_is_measured(dinolab, tmp_path, name, size, more):
    code, out, err = dinolab(name, "--size", size, "--out", "out", *QUICK, *more)
    assert (code, err) == (0, "")
    assert "RANDOM WEIGHTS" in out
    assert "4 of 1797 images in digits" in out
    assert "content dependence" in out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["model"]["random_weights"] is True
    assert summary["images"]["size"] == size
    rows = pq.read_table(tmp_path / "out" / "metrics.parquet").to_pylist()
    depth = summary["model"]["blocks"]
    assert {row["layer"] for row in rows} == {None, *range(1, depth + 1)}
    assert (tmp_path / "out" / "report.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    if more == ["--causal-images", "2"]:
        assert "influence/cls/gyration" in summary["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["vit_tiny_patch16_22"], "no such model; nearest are vit_tiny_patch16_224"),
        (["vit_nothing_here"], "no such model; nearest are vit_tiny_patch16_384"),
        (["resnet50"], "ResNet is no ViT"),
        (["."], "holds no model"),
        (["nowhere/run"], "is not there: give a checkpoint"),
        (["vit_tiny_patch16_224", "--size", "50"], "multiple of its patch of 16 pixels"),
        (["vit_tiny_patch16_224", "--size", "20000"], "at most 256 are measured, 4096 pixels"),
        (["vit_tiny_patch16_224", "--out", "/proc/none"], "--out /proc/none cannot be written"),
        (["vit_tiny_patch16_224", "--layers", "13"], "blocks 1 to 12 of this model: 13"),
        (["vit_tiny_patch16_224", "--layers", "a"], "must be numbers such as 7,8"),
        (["vit_tiny_patch16_224", "--device", "tpu"], "is not one of 'auto', 'cpu', 'cuda'"),
        (["vit_tiny_patch16_224", "--data", "nowhere"], "No such file"),
        (["vit_tiny_patch16_224", "--weights", "nowhere.pth"], "there is no such file"),
        (["vit_tiny_patch16_224", "--heads", "7"], "should be divisible by num_heads"),
    ],
)
def test_what_cannot_be_measured_is_one_line(dinolab, tmp_path, arguments, line):
    code, out, err = dinolab(*arguments[:1], "--out", "out", *QUICK, *arguments[1:])
    assert code == 2
    assert line in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("--seed", 2**63), ("--memory", "inf"), ("--memory", "nan")])
def test_a_number_out_of_range_is_refused(dinolab, tmp_path, arguments):
    code, out, err = dinolab("vit_tiny_patch16_224", "--out", "out", *QUICK, *arguments)
    assert code == 2
    assert f"Invalid value for '{arguments[0]}'" in err
    assert "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_table_shows_every_number_in_a_narrow_terminal(dinolab, monkeypatch, tmp_path):
    # What is no terminal has 120 columns, whatever the environment says.
    monkeypatch.setattr("orchestrator.cli.measure.make_console", lambda: Console(width=80))
    code, out, _ = dinolab("vit_little_patch16_reg4_gap_256", "--size", 48, "--out", "out", *QUICK)
    assert code == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    primary, final = out[out.index("Primary layers") :].split("Final block", 1)
    for part, suffix in ((primary, ""), (final, "/final_block")):
        line = next(line.split() for line in part.splitlines() if line.startswith("   gyration"))
        tokens = ("register", "patch")
        found = [summary["metrics"][f"globality/{token}/gyration{suffix}"] for token in tokens]
        assert [float(cell) for cell in line[1:]] == pytest.approx(found, abs=6e-4)


def test_images_must_be_named(dinolab):
    code, _, err = dinolab("vit_tiny_patch16_224", "--out", "out")
    assert code == 2
    assert err.startswith("--data is missing")


def test_a_full_folder_is_refused_before_anything_is_measured(dinolab, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    code, _, err = dinolab("vit_tiny_patch16_224", "--out", "out", *QUICK)
    assert code == 2
    assert "is not empty" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(dinolab):
    code, _, err = dinolab("vit_tiny_patch16_224", "--out", "out", "--device", "cuda", *QUICK)
    assert code == 2
    assert "PyTorch finds no GPU here" in err


@pytest.mark.slow
def test_a_folder_of_pictures_and_of_hugging_face(dinolab, tmp_path):
    transformers = pytest.importorskip("transformers")
    from PIL import Image

    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8
    )
    transformers.Dinov2WithRegistersModel(config).save_pretrained(tmp_path / "small-dino")
    (tmp_path / "pictures").mkdir()
    for number in range(6):
        shade = (40 * number, 90, 200 - 30 * number)
        Image.new("RGB", (60 + number, 40), shade).save(tmp_path / "pictures" / f"{number}.png")
    code, out, err = dinolab(
        "small-dino", "--data", "pictures", "--root", "cache", "--out", "out", "--threads", "1"
    )
    assert (code, err) == (0, "")
    assert "RANDOM" not in out
    assert "register" in out
    assert f"6 of 6 images in {Path('pictures').absolute()}" in out
    assert "there is no preprocessor_config.json" in out
    assert "Set aside, a backbone has no use for them: embeddings.mask_token" in out


@pytest.mark.slow
def test_neither_ray_nor_mlflow_nor_pandas_nor_plotly_is_needed(tmp_path):
    (tmp_path / "only.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "absent = ('ray', 'mlflow', 'pandas', 'plotly', 'transformers', 'datasets')\n"
        "find = PathFinder.find_spec\n"
        "def find_spec(name, path=None, target=None):\n"
        "    return None if name.partition('.')[0] in absent else find(name, path, target)\n"
        "PathFinder.find_spec = find_spec\n"
        "from orchestrator.cli.entry import main\n"
        "main()\n"
    )
    arguments = ("measure", "vit_tiny_patch16_224", "--size", "32", "--out", tmp_path / "out")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "only.py"), *map(str, arguments), *QUICK],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_without_timm_a_name_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['timm'] = None\nfrom orchestrator.cli.entry import main\nmain()"
    )  # fmt: skip
    arguments = ("measure", "vit_tiny_patch16_224", "--out", str(tmp_path / "out"), *QUICK)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'dinolab[measure]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_an_interruption_is_130_and_leaves_nothing(tmp_path):
    arguments = ["measure", "vit_tiny_patch16_224", "--size", "224", "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "orchestrator", *arguments, "--limit", "500", *QUICK[:2]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    ) as process:
        for line in process.stdout:
            if line.startswith("RANDOM WEIGHTS"):
                break
        os.kill(process.pid, signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert "interrupted: nothing was written" in rest
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
