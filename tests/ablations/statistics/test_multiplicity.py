"""Adjusted p-values against their definitions and published examples."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from ablations.statistics.multiplicity import (
    benjamini_hochberg,
    fixed_sequence,
    holm_over_groups,
    holm_p,
)

BENJAMINI_HOCHBERG_1995 = [
    *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344),
    *(0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0),
]
"""The 15 p-values of their section 4, of thrombolysis after myocardial infarction."""


def test_the_example_of_1995_rejects_four_by_its_method_and_three_by_holms():
    assert (benjamini_hochberg(BENJAMINI_HOCHBERG_1995) <= 0.05).sum() == 4
    assert (holm_p(BENJAMINI_HOCHBERG_1995) <= 0.05).sum() == 3


@pytest.mark.parametrize(("adjust", "method"), [(holm_p, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_adjusted_p_is_that_of_statsmodels(adjust, method):
    rows = np.random.default_rng(0).random((3, 7)) ** 2
    rows[0, 2:5] = rows[0, 1]
    expected = [multipletests(row, method=method)[1] for row in rows]
    assert adjust(rows) == pytest.approx(np.array(expected), rel=1e-12)


def test_a_sequence_ends_at_the_first_that_fails():
    assert fixed_sequence([0.01, 0.03, 0.2, 0.001]).tolist() == [0.01, 0.03, 0.2, 0.2]


@pytest.mark.parametrize("adjust", [holm_p, fixed_sequence, benjamini_hochberg])
def test_one_or_no_test_needs_no_adjustment(adjust):
    assert adjust([0.03]).tolist() == [0.03]
    assert adjust([]).tolist() == []


@pytest.mark.parametrize("adjust", [holm_p, benjamini_hochberg])
def test_order_of_tests_does_not_matter(adjust):
    rng = np.random.default_rng(1)
    p, order = rng.random(9), rng.permutation(9)
    assert adjust(p[order]) == pytest.approx(adjust(p)[order])


@pytest.mark.parametrize("adjust", [holm_p, fixed_sequence, benjamini_hochberg])
def test_no_adjustment_makes_a_p_smaller_or_more_than_1(adjust):
    p = np.random.default_rng(2).random((100, 6))
    assert ((adjust(p) >= p - 1e-12) & (adjust(p) <= 1)).all()


@pytest.mark.parametrize("adjust", [holm_p, fixed_sequence, benjamini_hochberg])
@pytest.mark.parametrize("wrong", [1.2, -0.1, float("nan")])
def test_what_is_no_p_value_is_refused(adjust, wrong):
    with pytest.raises(ValueError, match="p-values must be in"):
        adjust([0.1, wrong])


def test_groups_of_one_are_adjusted_by_holm():
    p = np.random.default_rng(3).random((50, 6)) ** 3
    groups = [[place] for place in range(6)]
    assert holm_over_groups(p, groups) == pytest.approx(holm_p(p), rel=1e-12)


def test_one_group_pays_nothing():
    assert holm_over_groups([0.03, 0.2, 0.01], [[0, 1, 2]]).tolist() == [0.03, 0.2, 0.01]


def test_a_group_leaves_its_share_only_once_all_of_it_is_rejected():
    groups = [[0, 1], [2]]
    assert holm_over_groups([0.001, 0.9, 0.03], groups)[2] == pytest.approx(0.06)
    assert holm_over_groups([0.001, 0.02, 0.03], groups)[2] == pytest.approx(0.04)
