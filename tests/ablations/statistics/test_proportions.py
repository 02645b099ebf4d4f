"""Exact tests of shares against sums of binomial and hypergeometric terms."""

import math

import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar

from ablations.statistics.proportions import clopper_pearson, fisher_p, mcnemar_p


@pytest.mark.parametrize(("first", "second", "p"), [(5, 0, 0.0625), (8, 0, 0.0078), (0, 0, 1.0)])
def test_mcnemar_has_known_values(first, second, p):
    assert round(mcnemar_p(first, second), 4) == p
    assert mcnemar_p(second, first) == mcnemar_p(first, second)


@pytest.mark.parametrize("first", range(5))
@pytest.mark.parametrize("second", range(1, 6))
def test_mcnemar_is_twice_the_binomial_tail(first, second):
    n, fewer = first + second, min(first, second)
    tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
    assert mcnemar_p(first, second) == pytest.approx(min(1, 2 * tail))
    table = [[3, first], [second, 1]]
    assert mcnemar_p(first, second) == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_five_of_eight_against_none_of_eight_has_p_0_0256_by_fisher():
    assert round(fisher_p(5, 8, 0, 8), 4) == 0.0256


@pytest.mark.parametrize(("a", "b"), [(5, 0), (4, 1), (3, 3), (0, 0), (8, 6)])
def test_fisher_sums_the_tables_that_are_no_likelier(a, b):
    def chance(k):
        return math.comb(8, k) * math.comb(6, a + b - k) / math.comb(14, a + b)

    tables = [chance(k) for k in range(max(0, a + b - 6), min(8, a + b) + 1)]
    expected = sum(one for one in tables if one <= chance(a) * (1 + 1e-7))
    assert fisher_p(a, 8, b, 6) == pytest.approx(expected)
    assert fisher_p(b, 6, a, 8) == pytest.approx(expected)


def test_none_of_eight_may_be_as_many_as_0_369():
    low, high = clopper_pearson(0, 8, 0.05)
    assert (low, round(high, 3)) == (0.0, 0.369)


@pytest.mark.parametrize(("count", "total"), [(1, 8), (4, 9), (8, 8)])
def test_the_interval_ends_where_a_tail_is_half_of_alpha(count, total):
    low, high = clopper_pearson(count, total, 0.1)
    assert scipy.stats.binom.sf(count - 1, total, low) == pytest.approx(0.05)
    assert high == 1.0 or scipy.stats.binom.cdf(count, total, high) == pytest.approx(0.05)


@pytest.mark.parametrize(("count", "total"), [(-1, 8), (9, 8), (0, 0)])
def test_what_is_no_share_is_refused(count, total):
    with pytest.raises(ValueError, match=f"got {count} of {total}"):
        fisher_p(1, 2, count, total)
    with pytest.raises(ValueError, match=f"got {count} of {total}"):
        clopper_pearson(count, total, 0.05)


@pytest.mark.parametrize(("first", "second"), [(-1, 3), (3, -1)])
def test_fewer_than_no_seeds_are_refused(first, second):
    with pytest.raises(ValueError, match="fewer than 0"):
        mcnemar_p(first, second)
