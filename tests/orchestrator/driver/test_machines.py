"""What every machine of a cluster is asked before a study starts there."""

import socket
import sys

import pytest
from PIL import Image

from orchestrator.driver.arrival import versions_here
from orchestrator.driver.machines import Answer, Question, contents, judged
from tests.faults.machines import ADDRESSES, HEAD, OTHER, Machines, why_not
from tests.reliability.little import write_study
from trainers.errors import DataError

HERE = {"python": "3.12.1", "torch": "2.11.0+cpu", "mlflow": "3.4.0"}


def test_a_machine_like_this_one_is_passed_over():
    assert judged([("a", Answer(versions=HERE)), ("b", Answer(versions=HERE))], HERE) == ([], [])
    # The same release, built for another device.
    assert judged([("a", Answer(versions={**HERE, "torch": "2.11.0+cu128"}))], HERE) == ([], [])


def test_what_several_machines_lack_is_said_once_and_each_thing_by_itself():
    lacking = Answer(problems=("does not see X",), versions=HERE)
    older = Answer(problems=("does not see X",), versions={**HERE, "torch": "2.9.0", "mlflow": "3"})
    refused, notes = judged([("a", lacking), ("b", older), ("c", lacking)], HERE)
    assert refused == [
        "machine a and 2 more does not see X",
        "machine b has torch 2.9.0 (here 2.11.0+cpu): a run must be the same on every machine",
    ]
    assert notes == ["machine b has mlflow 3 (here 3.4.0)"]
    refused, _ = judged([("a", Answer(versions={"python": "3.12.1", "mlflow": "3.4.0"}))], HERE)
    assert "machine a has torch not installed" in refused[0]


def test_folders_are_told_apart_by_the_names_in_them(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "cats").mkdir(parents=True)
    assert contents(str(one)) == contents(str(other))
    (other / "dogs").mkdir()
    assert contents(str(one)) != contents(str(other))
    (one / "dogs").touch()
    assert contents(str(one)) == contents(str(other))
    file = tmp_path / "file"
    file.touch()
    assert contents(str(file)) != contents(str(one))
    with pytest.raises(DataError, match="nowhere is not there"):
        contents(str(tmp_path / "nowhere"))


def test_a_root_or_images_that_are_others_there_are_named_with_their_path(tmp_path):
    root, data = tmp_path / "runs", tmp_path / "images"
    for folder in (root, data):
        folder.mkdir()
    (root / ".seen-1").touch()
    seen = Question(root=str(root), mark=".seen-1", sources={str(data): contents(str(data))})
    assert seen.answer().problems == ()
    unseen = Question(root=str(root), mark=".seen-2", sources={str(data): "another"})
    root_line, data_line = unseen.answer().problems
    assert f"the run root ({root} is another folder there): give --root a folder" in root_line
    assert f"the images ({data} holds other files there): give --data a folder" in data_line
    nowhere = tmp_path / "nowhere"
    absent = Question(root=str(nowhere), mark=".seen-1", sources={str(nowhere): "any"})
    root_line, data_line = absent.answer().problems
    assert str(nowhere) in root_line
    assert f"({nowhere} is not there)" in data_line


@pytest.mark.slow
def test_a_study_is_refused_that_another_machine_does_not_see_before_anything_is_written(tmp_path):
    if reason := why_not():
        pytest.skip(reason)
    root, data, libraries = (tmp_path / name for name in ("runs", "images", "libraries"))
    root.mkdir()
    data.mkdir()
    for name in ("torch", "mlflow"):
        (installed := libraries / f"{name}-0.1.dist-info").mkdir(parents=True)
        said = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n"
        (installed / "METADATA").write_text(said)
    for number in range(8):
        Image.new("RGB", (20, 20), (30 * number, 0, 0)).save(data / f"{number}.png")
    command = ["-m", "orchestrator", "run", str(write_study(tmp_path, 1)), "--root", str(root)]
    with (
        Machines(empty=[root, data], first=[libraries]) as machines,
        machines.run(
            HEAD, [sys.executable, *command, "--data", str(data)], RAY_ADDRESS=machines.address
        ) as process,
    ):
        said, _ = process.communicate()
    assert process.returncode == 2, said
    *before, refusal = said.splitlines()
    machine = f"machine {socket.gethostname()} ({ADDRESSES[OTHER]})"
    root_said, data_said, torch_said = refusal.split("; ")
    assert f"{machine} does not see the run root ({root} is another folder there)" in root_said
    assert f"{machine} does not see the images ({data} holds other files there)" in data_said
    assert f"{machine} has torch 0.1 (here {versions_here()['torch']})" in torch_said
    assert any(line.startswith(f"note: {machine} has mlflow 0.1 (here ") for line in before)
    assert "Traceback" not in said
    assert not [path for path in root.iterdir() if path.name != "data"], "only the index of images"
