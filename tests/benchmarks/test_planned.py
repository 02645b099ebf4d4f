"""What a sequential design is planned to find, against the judge that follows it."""

import numpy as np
import pytest

from ablations.design import Design as Looks
from benchmarks.planned import CLAIMS, STATED, as_planned, line
from benchmarks.simulated import Figure


@pytest.mark.parametrize("spending", ["obf", "pocock"])
def test_the_judge_finds_what_was_planned(spending):
    looks = Looks(looks=(6, 8, 10), spending=spending, futility="equivalence")
    found = list(as_planned(looks, 1.5, 60, np.random.default_rng(0)))
    assert len(found) == 2 * len(STATED) + len(CLAIMS)
    for figure in found:
        assert figure.is_kept(errors=4), line(figure)


@pytest.mark.parametrize(("found", "kept"), [(0.519, "yes"), (0.521, "**no**"), (0.479, "**no**")])
def test_two_points_are_the_limit(found, kept):
    assert line(Figure("rises", 16, "=", 0.5, found, 0.5, 1)).endswith(f"| {kept} |")
