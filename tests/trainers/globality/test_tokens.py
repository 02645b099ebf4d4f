"""Which patches are measured as queries."""

from collections import Counter

import pytest
import torch

from trainers.globality.tokens import Tokens, spread_over_rings, stratified

CPU = torch.device("cpu")


@pytest.mark.parametrize("grid", [(4, 4), (14, 14), (7, 28)])
def test_every_patch_of_up_to_196_is_a_query(grid):
    assert stratified(grid, 64, CPU).tolist() == list(range(grid[0] * grid[1]))


@pytest.mark.parametrize(
    ("grid", "most", "sample"),
    [
        ((28, 28), 64, stratified),
        ((56, 56), 64, stratified),
        ((15, 20), 30, stratified),
        ((4, 4), 8, spread_over_rings),
        ((7, 7), 8, spread_over_rings),
        ((8, 8), 8, spread_over_rings),
    ],
)
def test_of_more_a_fixed_sample_has_each_ring_in_its_share(grid, most, sample):
    chosen = sample(grid, most, CPU).tolist()
    assert chosen == sample(grid, most, CPU).tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == most
    rows, columns = grid

    def ring(patch: int) -> int:
        row, column = divmod(patch, columns)
        return min(row, column, rows - 1 - row, columns - 1 - column)

    # No row and no column has more than its share and a few.
    for place in range(2):
        lines = Counter(divmod(patch, columns)[place] for patch in chosen)
        assert max(lines.values()) <= 2 * most / grid[place] + 2
    everywhere = Counter(ring(patch) for patch in range(rows * columns))
    found = Counter(map(ring, chosen))
    for one, count in everywhere.items():
        assert abs(found[one] - most * count / (rows * columns)) <= 1


def test_rows_name_every_kind_of_query_that_there_is():
    tokens = Tokens(
        grid=(2, 3), has_cls=True, registers=2, patch_queries=torch.tensor([1, 4]), fixed_patch=5
    )
    rows = {
        name: (places.tolist(), None if patches is None else patches.tolist())
        for name, places, patches in tokens.rows()
    }
    assert (tokens.first, tokens.patches, tokens.count) == (3, 6, 9)
    assert rows == {
        "cls": ([0], None),
        "register": ([1, 2], None),
        "fixed_patch": ([8], [5]),
        "patch": ([4, 7], [1, 4]),
    }


def test_without_cls_registers_or_fixed_patch_only_patches_are_queries():
    tokens = Tokens(
        grid=(2, 2), has_cls=False, registers=0, patch_queries=torch.arange(4), fixed_patch=None
    )
    assert [name for name, *_ in tokens.rows()] == ["patch"]
