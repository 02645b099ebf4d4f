"""`python -m benchmarks.gpu` at toy size on a CPU: every part leaves its figures, come what may."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.contest import Contender
from benchmarks.gpu import profile, same_as_cpu, same_bits
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.parts import STEPS, run_step
from benchmarks.gpu.record import FAILURES, FIGURES, TABLE, Record
from benchmarks.gpu.step import _variants
from benchmarks.gpu.task import PRELOADED, Best, Task
from tests.contracts.pretend_device import pretending

ROOT = Path(__file__).resolve().parents[2]

BARE = "ray mlflow typer timm pandas plotly sklearn skimage statsmodels rich"
"""Libraries that a machine with a GPU may lack."""

ABSENT = """
import os, sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if {name, name.split(".")[0]} & set(os.environ["ABSENT"].split()):
            return None
        return super().find_spec(name, path, target)

sys.meta_path[:] = [Bare if one is PathFinder else one for one in sys.meta_path]
"""


def start(out: Path, *arguments: str, absent: str = "") -> "subprocess.Popen[str]":
    """The command as a process of its own, in which some modules cannot be found."""
    site = out.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(ABSENT)
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "benchmarks.gpu", "--out", str(out), "--toy", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{site}:{ROOT}", "ABSENT": absent},
        stdout=subprocess.PIPE,
        text=True,
    )


def parts(out: Path) -> dict[str, dict]:
    return json.loads((out / FIGURES).read_text())["parts"]


@pytest.mark.slow
def test_every_part_leaves_its_figures_on_a_bare_machine(tmp_path):
    out = tmp_path / "out"
    process = start(out, absent=BARE)
    process.communicate()
    found = parts(out)
    assert not (out / FAILURES).exists()
    assert process.returncode == 0
    assert {name: part["status"] for name, part in found.items()} == {
        step.name: "done" for step in STEPS
    }
    del found["same_bits_fast"]  # no knob pays at toy size
    assert all(part["figures"] and part["rows"] for part in found.values())
    assert all(all(one.values()) for one in found["same_bits"]["figures"].values())
    assert found["same_as_cpu"]["figures"]["chain of the same images"]
    assert found["step"]["figures"]["best"]["rate"] > 0
    assert "timm is not installed" in found["measuring"]["notes"][0]
    assert (out / "trace-no-speed-knobs.json.gz").stat().st_size
    table = (out / TABLE).read_text()
    assert table.startswith("**TOY")
    assert all(f"| **{step.title}** |" in table for step in STEPS)


@pytest.mark.slow
def test_a_part_that_fails_leaves_its_traceback_and_the_next_goes_on(tmp_path):
    out = tmp_path / "out"
    chosen = ("same_as_cpu", "measuring", "evaluation")
    only = [word for name in chosen for word in ("--only", name)]
    process = start(out, *only, absent="benchmarks.attention_extract")
    process.communicate()
    assert process.returncode == 1
    assert [part["status"] for part in parts(out).values()] == ["done", "failed", "done"]
    failures = (out / FAILURES).read_text()
    assert "Traceback" in failures
    assert "ImportError: cannot import name 'attention_extract'" in failures
    assert "**Measuring** (failed)" in (out / TABLE).read_text()


@pytest.mark.slow
def test_an_end_in_the_middle_leaves_the_figures_of_earlier_parts(tmp_path):
    out = tmp_path / "out"
    process = start(out, "--only", "evaluation", "--only", "same_as_cpu")
    assert process.stdout
    next(line for line in process.stdout if line.startswith("Evaluation at size"))
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143
    earlier, cut = parts(out)["same_as_cpu"], parts(out)["evaluation"]
    assert (earlier["status"], cut["status"]) == ("done", "cut")
    assert earlier["figures"]
    assert not list(out.glob(".*"))


def task(tmp_path: Path, device: str, seconds: float) -> Task:
    return Task(
        device=device,
        original=None,
        scratch=tmp_path,
        folder=tmp_path,
        deadline=time.monotonic() + seconds,
        best=Best(knobs={}, batch=4, rate=0.0),
    )


def empty(tmp_path: Path) -> Record:
    record = Record(tmp_path)
    whole = {"machine": "a card", "toy": False, "command": "", "date": "", "parts": {}}
    record.write(whole)
    return record


@pytest.mark.slow
@pytest.mark.parametrize("part", [same_bits, same_as_cpu, profile])
def test_a_part_mixes_no_devices(part, tmp_path, reproducible):
    record = empty(tmp_path)
    with pretending():
        part.run(task(tmp_path, "pretend", 60), record.part("part"))
    assert "**" not in "".join(row["goal"] for row in parts(tmp_path)["part"]["rows"])


@pytest.fixture
def reproducible():
    """What a part sets in its own process, set back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.mark.slow
def test_a_part_is_cut_when_its_time_is_over(tmp_path):
    record = empty(tmp_path)
    assert not run_step(STEPS[0], task(tmp_path, "cpu", 0.1), record)
    assert parts(tmp_path)[STEPS[0].name]["status"] == "cut"


def test_a_part_is_skipped_when_too_little_time_is_left(tmp_path):
    record = empty(tmp_path)
    assert run_step(STEPS[0], task(tmp_path, "cuda", 3), record)
    part = parts(tmp_path)[STEPS[0].name]
    assert (part["status"], part["reason"]) == ("skipped", "3 s were left for it")
    assert "**Same bits** (skipped: 3 s were left for it)" in (tmp_path / TABLE).read_text()


def test_what_a_part_finds_is_on_disk_at_once(tmp_path):
    part = empty(tmp_path).part("step", "Step")
    part.status("running")
    part.figure("rate", 3000.5)
    assert parts(tmp_path)["step"]["figures"] == {"rate": 3000.5}
    part.row("images a second", "3,000.5")
    table = (tmp_path / TABLE).read_text()
    assert "| **Step** (cut while it ran) | | | | |\n| images a second | 3,000.5 | " in table


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--original", "nowhere"], "--original nowhere: no main_dino.py there"),
        (["--minutes", "0"], "--minutes must be above 0"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_written(given, said, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        main(["--out", str(out), *given])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_each_knob_is_tried_alone_and_left_out_once():
    assert _variants({}) == []
    assert _variants({"a": 1}) == []
    assert _variants({"a": 1, "b": 2}) == [{"a": 1}, {"b": 2}]
    assert {"a": 1, "c": 3} in _variants({"a": 1, "b": 2, "c": 3})
    assert _variants({"compile": 1, "b": 2}) == [{"b": 2}, {"compile": 1}]


REFUSING = """
import importlib, sys, torch

def refuse(*_, **__):
    raise AssertionError("asked for a GPU")

for name in ("is_available", "device_count", "_lazy_init", "current_device"):
    setattr(torch.cuda, name, refuse)
for name in ("_cuda_init", "_cuda_getDeviceCount", "_accelerator_getAccelerator"):
    setattr(torch._C, name, refuse)
for module in sys.argv[1:]:
    importlib.import_module(module)
"""


@pytest.mark.slow
def test_nothing_that_is_preloaded_asks_for_a_gpu():
    subprocess.run([sys.executable, "-c", REFUSING, *PRELOADED, "timm"], cwd=ROOT, check=True)


def starts_from(_: object) -> Callable[[int], float]:
    loaded = float("benchmarks.our_runs" in sys.modules)
    return lambda steps: steps * loaded


@pytest.mark.slow
def test_contenders_on_a_gpu_find_their_modules_imported_and_no_round_is_held_again(tmp_path):
    contender = Contender(name="one", make=starts_from, arguments=(None,))
    given = task(tmp_path, "cuda", 60)
    (one,) = given.turns([contender], rounds=2, steps=3, warmup=0)
    assert (one.failure, one.amounts) == ("", [3.0, 3.0])
