"""How `make test` shares the tests between its two processes."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conftest import group_of

HOME = Path(__file__).parent.parent.parent

NOTES_WHERE_IT_RUNS = """
import os
import pytest

@pytest.mark.parametrize("number", range(6))
def test_one(number):
    with open("ran", "a") as file:
        file.write(f"{os.path.basename(__file__)} {os.getpid()}\\n")
"""


@pytest.mark.slow
def test_the_tests_of_a_file_run_in_one_process(tmp_path):
    for name in "abcd":
        (tmp_path / f"test_{name}.py").write_text(NOTES_WHERE_IT_RUNS)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    subprocess.run(
        [sys.executable, "-m", "pytest", "--numprocesses", "2", "--dist", "loadgroup", "-q"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(HOME), "PYTEST_ADDOPTS": ""},
        check=True,
    )
    processes = defaultdict(set)
    for line in (tmp_path / "ran").read_text().splitlines():
        file, process = line.split()
        processes[file].add(process)
    assert sorted(processes) == [f"test_{name}.py" for name in "abcd"]
    assert all(len(one) == 1 for one in processes.values())


def test_whole_studies_are_run_in_one_process():
    files = ("driver/test_runs.py", "tracking/test_mirror.py", "cli/test_start.py")
    assert {group_of(f"tests/orchestrator/{file}") for file in files} == {"studies"}
    assert group_of("tests/contracts/test_devices.py") == "tests/contracts/test_devices.py"
