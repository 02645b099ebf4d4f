"""Folders of workers' parts: what is read of them, and what is not."""

import pickle

import pytest
import torch
import torch.distributed.checkpoint

from trainers.system.sharded_files import read_into, shapes
from trainers.system.world import World

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
TENSORS = {
    "half": torch.ones(3, 4, dtype=torch.bfloat16),
    "one": torch.full((), 2.0, dtype=torch.float64),
    "places": torch.arange(5),
}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "parts"
    # Nothing is copied ahead: the pretend device of other tests has no streams.
    writer = torch.distributed.checkpoint.FileSystemWriter(place, per_thread_copy_ahead=0)
    torch.distributed.checkpoint.save(TENSORS, storage_writer=writer, no_dist=True)
    return place


@pytest.mark.filterwarnings("ignore")
def test_tensors_of_every_type_come_back(folder):
    assert shapes(folder) == {"half": (3, 4), "one": (), "places": (5,)}
    found = {name: torch.zeros_like(tensor) for name, tensor in TENSORS.items()}
    read_into(found, folder, ALONE)
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor)


class Runs:
    """Unpickled, it would make a folder."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.place),)


@pytest.mark.filterwarnings("ignore")
def test_a_list_that_would_run_code_is_refused_and_runs_none(folder, tmp_path):
    made = tmp_path / "made"
    (folder / ".metadata").write_bytes(pickle.dumps(Runs(made)))
    for read in (lambda: shapes(folder), lambda: read_into(dict(TENSORS), folder, ALONE)):
        with pytest.raises(ValueError, match=r"names posix\.mkdir, which no such list does"):
            read()
    assert not made.exists()


@pytest.mark.parametrize("content", [b"", b"garbage\n", pickle.dumps([1]), pickle.dumps({})])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_list_is_one_line(folder, content):
    (folder / ".metadata").write_bytes(content)
    with pytest.raises(ValueError, match="the list of its tensors cannot be read: ") as caught:
        shapes(folder)
    assert "\n" not in str(caught.value)
