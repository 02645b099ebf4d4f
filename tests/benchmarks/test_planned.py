"""What a sequential design is planned to find, against the judge that follows it."""

import numpy as np
import pytest

from ablations.design import Design as Looks
from benchmarks.planned import CLAIMS, STATED, Row, as_planned, line


@pytest.mark.parametrize("spending", ["obf", "pocock"])
def test_the_judge_finds_what_was_planned(spending):
    looks = Looks(looks=(6, 8, 10), spending=spending, futility="equivalence")
    found = as_planned(looks, 1.5, 40, np.random.default_rng(0))
    assert len(found) == 2 * len(STATED) + len(CLAIMS)
    for row in found:
        assert abs(row.found - row.planned) <= 4 * row.error, line(row)
        # All flips of so few seeds are in the plan too, so each study is decided alike.
        assert (row.paired, row.paired_error) == (0.0, 0.0), line(row)


@pytest.mark.parametrize(("found", "kept"), [(0.519, "yes"), (0.521, "**no**"), (0.479, "**no**")])
def test_two_points_are_the_limit(found, kept):
    assert f"| {kept} |" in line(Row("rises", 0.5, found, 0.5, 0.0, 0.0))
