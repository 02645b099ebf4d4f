"""What a test draws hangs on no test before it: `tests/conftest.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent.parent

DRAWS = """
import pytest
import torch

@pytest.fixture(scope="module")
def weights():
    return torch.rand(2).tolist()

def test_before(weights):
    torch.rand(7)

def test_drawing(weights):
    with open("drawn", "a") as file:
        print(weights, torch.rand(2).tolist(), file=file)
"""


@pytest.mark.slow
def test_what_a_test_draws_hangs_on_no_test_before_it(tmp_path):
    (tmp_path / "test_draws.py").write_text(DRAWS)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    for chosen in ("test_draws.py", "test_draws.py::test_drawing"):
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", chosen],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(HOME), "PYTEST_ADDOPTS": ""},
            check=True,
        )
    first, alone = (tmp_path / "drawn").read_text().splitlines()
    assert first == alone
