"""`--profile`: a few steps of a real run, and nothing else changes."""

import json
import os
import re
import subprocess
import sys

import pytest

from trainers import __main__ as command
from trainers.training.profile import TABLE, TRACE, check_folder

SMALL = [
    "digits_tiny", "--set", "model.depth=2", "--set", "evaluation.globality_layers=[1]",
    "--set", "evaluation.every=100", "--set", "log_every=1", "--set", "evaluation.probes=no",
    "--set", "evaluation.causal_images=0", "--set", "evaluation.globality_images=16",
]  # fmt: skip


def notes(capture):
    """What a run says besides its records."""
    said = capture.readouterr().out
    return [line for line in said.splitlines() if line.startswith("note: ")]


def kept(root):
    """What a run leaves that says what it computed: losses, chain and checkpoint."""
    (result,) = root.glob("trials/*/result.json")
    segments = sorted(result.parent.glob("attempts/0001/metrics-*.jsonl"))
    records = [json.loads(line) for one in segments for line in one.read_text().splitlines()]
    losses = [str(one) for one in records if "loss/total" in str(one)]
    losses = [re.findall(r"'(?:loss|data|optimizer)/\w+': [^,}]+", one) for one in losses]
    (saved,) = result.parent.glob("attempts/*/checkpoint-*.safetensors")
    return losses, json.loads(result.read_text())["chain"], saved.read_bytes()


def steps_of(trace):
    events = json.loads(trace.read_text())["traceEvents"]
    return {one["name"] for one in events if one.get("name", "").startswith("ProfilerStep#")}


@pytest.mark.slow
def test_the_profiler_writes_no_lines_of_its_own(tmp_path):
    # In a process of its own: the profiler's library reads what it may write when it is loaded.
    environment = {name: value for name, value in os.environ.items() if "KINETO" not in name}
    arguments = [*SMALL, "--set", "steps=6", f"--root={tmp_path}/runs", f"--profile={tmp_path}/p"]
    ended = subprocess.run(
        [sys.executable, "-m", "trainers", *arguments],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stderr == ""
    assert ended.stdout.count("note: profile of steps 4 to 6") == 1


@pytest.mark.slow
def test_a_profile_holds_three_steps_and_changes_no_bit(tmp_path, capfd):
    arguments = [*SMALL, "--set", "steps=7"]
    assert command.run([*arguments, f"--root={tmp_path}/plain"]) == 0
    assert notes(capfd) == []
    place = tmp_path / "new" / "profile"
    assert command.run([*arguments, f"--root={tmp_path}/seen", f"--profile={place}"]) == 0
    (line,) = notes(capfd)
    assert line.startswith("note: profile of steps 4 to 6 of this process: ")
    assert all(str(place / name) in line for name in (TRACE, TABLE))
    assert sorted(path.name for path in place.iterdir()) == [TABLE, TRACE]
    assert len(steps_of(place / TRACE)) == 3
    rows = (place / TABLE).read_text()
    calls = re.search(r"Optimizer\.step\S* .* (\d+) *$", rows, re.MULTILINE)
    assert calls is not None
    assert int(calls[1]) == 3
    assert "aten::addmm" in rows
    assert kept(tmp_path / "plain") == kept(tmp_path / "seen")


@pytest.mark.slow
def test_a_run_too_short_to_profile_says_so(tmp_path, capsys):
    arguments = [*SMALL, "--set", "steps=5", f"--root={tmp_path}/runs", f"--profile={tmp_path}/x"]
    for made in (5, 0):  # the second time it is finished
        assert command.run(arguments) == 0
        (line,) = notes(capsys)
        assert line == (
            "note: nothing is profiled: steps 4 to 6 of a process would be, and this one has made "
            f"{made}"
        )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("place", ["file", "file/below", "gone"])
def test_a_file_in_the_way_is_refused_before_anything_is_read(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    images = ["--set", "data.source=not_there"]
    monkeypatch.setattr(sys, "argv", ["trainers", "digits_tiny", *images, "--profile", place])
    assert command.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"--profile {place}: ")
    assert line.endswith(" is a file; give a folder, new or not")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "gone"]


def test_folders_there_or_new_are_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path, tmp_path / "a" / "b", tmp_path.relative_to(tmp_path), tmp_path / ".."):
        check_folder(place)
    assert list(tmp_path.iterdir()) == []
