"""Rows come back as they went in, however many blocks of them lie in a file."""

import tempfile

import pytest
import torch

from trainers.errors import InputError
from trainers.evaluation import rows
from trainers.evaluation.rows import Joined, Rows, Standardised, with_labels

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK", 8)


def filled(data, batch):
    found = Rows(data.shape[1], CPU)
    for part in data.split(batch):
        found.add(part)
    return found


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17, 100])
@pytest.mark.parametrize("batch", [1, 5, 8, 30])
def test_blocks_are_the_rows_in_order_each_time(count, batch):
    data = torch.randn(count, 3)
    found = filled(data, batch)
    for _ in range(2):
        blocks = list(found)
        assert torch.equal(torch.cat(blocks), data)
        assert [len(block) for block in blocks[:-1]] == [8] * (len(blocks) - 1)
    assert len(found) == count


def test_rows_may_be_read_twice_at_once_and_added_to_between():
    data = torch.randn(40, 2)
    found = filled(data[:30], 4)
    for one, other in zip(found, found, strict=True):
        assert torch.equal(one, other)
    found.add(data[30:])
    assert torch.equal(torch.cat(list(found)), data)


def test_no_more_than_a_block_and_a_batch_stays_in_memory():
    found = Rows(3, CPU)
    for part in torch.randn(100, 3).split(5):
        found.add(part)
        assert sum(map(len, found._open)) <= 8
        assert all(kept._base is None for kept in found._open)


def test_without_rows_there_is_one_block_of_none():
    assert [block.shape for block in Rows(5, CPU)] == [(0, 5)]


def test_a_temporary_folder_that_cannot_be_written_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
    with pytest.raises(InputError, match=r"not there: .*; set TMPDIR to a folder with more room"):
        filled(torch.randn(9, 3), 9)


def test_rows_side_by_side_standardised_and_labelled_are_those_of_whole_tensors():
    one, other, labels = torch.randn(20, 2), torch.randn(20, 3), torch.arange(20)
    mean, deviation = torch.randn(5), torch.rand(5) + 1
    together = Standardised(Joined([filled(one, 6), filled(other, 7)]), mean, deviation)
    blocks, known = zip(*with_labels(together, labels), strict=True)
    assert torch.equal(torch.cat(blocks), (torch.cat([one, other], 1) - mean) / deviation)
    assert torch.equal(torch.cat(known), labels)
