"""What a study comes to when something of its cluster fails; `make soak` tries every cell."""

import pytest

from tests.faults.machines import why_not
from tests.faults.matrix import table, try_, undisturbed

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _machines() -> None:
    if reason := why_not():
        pytest.skip(reason)


def test_a_study_whose_machines_lose_their_link_ends_as_one_undisturbed(tmp_path):
    fault, moment = "the link between the machines fails", "a checkpoint is there"
    row = try_(fault, moment, tmp_path, undisturbed(tmp_path))
    assert row["problems"] == []
    assert row["exit"] == [0]
    assert table([row]).splitlines()[-1].startswith(f"| {fault} | {moment} | nothing | 0 |")
