"""What pairing is worth, against closed forms and counts."""

import numpy as np
import pytest

from ablations.statistics.pairing import paired


def arms(ratio, n=8):
    """Two arms of variance 1 whose differences have variance 2 * ratio, exactly."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(np.column_stack([np.ones(n), rng.standard_normal((n, 2))]))[0]
    one, other = basis[:, 1:].T * np.sqrt(n - 1)
    correlation = 1 - ratio
    return 3.0 + one, correlation * one + np.sqrt(1 - correlation**2) * other


@pytest.mark.parametrize("ratio", [0.1, 0.48, 1.0, 1.5])
def test_ratio_and_correlation_are_those_of_the_variances(ratio):
    arm, against = arms(ratio)
    found = paired(arm, against)
    expected = (arm - against).var(ddof=1) / (arm.var(ddof=1) + against.var(ddof=1))
    assert found.variance_ratio == pytest.approx(expected) == pytest.approx(ratio)
    assert found.correlation == pytest.approx(np.corrcoef(arm, against)[0, 1])
    assert found.correlation == pytest.approx(1 - ratio)


@pytest.mark.parametrize(("ratio", "seeds"), [(0.48, 14.3), (0.56, 12.4)])
def test_eight_pairs_are_worth_twelve_to_fourteen_unpaired_seeds(ratio, seeds):
    assert paired(*arms(ratio)).unpaired_seeds == pytest.approx(seeds, abs=0.05)


@pytest.mark.parametrize("n", [2, 6, 8, 30])
@pytest.mark.parametrize("ratio", [0.2, 1.0, 1.7])
def test_unpaired_seeds_say_as_much_by_fishers_information(n, ratio):
    arm, against = arms(ratio, max(n, 3))
    n = len(arm)
    unpaired = paired(arm, against).unpaired_seeds
    of_pairs = n / ratio * n / (n + 2)
    assert unpaired * (2 * unpaired - 1) / (2 * unpaired + 1) == pytest.approx(of_pairs)


def test_pairs_that_are_unrelated_cost_seeds():
    assert 7 < paired(*arms(1.0)).unpaired_seeds < 8


def test_unit_and_place_do_not_matter_and_order_of_arms_neither():
    arm, against = arms(0.4)
    first, second = paired(arm, against), paired(5 - 1e-9 * against, 1e-9 * -arm)
    for name in ("correlation", "variance_ratio", "unpaired_seeds"):
        assert getattr(first, name) == pytest.approx(getattr(second, name))


def test_numbers_that_do_not_exist_are_none():
    arm, constant = np.arange(6.0), np.ones(6)
    shifted = paired(arm, arm + 2)
    assert (shifted.correlation, shifted.variance_ratio) == (pytest.approx(1), 0)
    assert shifted.unpaired_seeds is None
    one = paired(arm, constant)
    assert (one.correlation, one.variance_ratio) == (None, 1)
    none = paired(constant, constant)
    assert (none.correlation, none.variance_ratio, none.unpaired_seeds) == (None, None, None)


@pytest.mark.parametrize("shapes", [((5,), (6,)), ((1,), (1,)), ((2, 3), (2, 3))])
def test_what_is_no_pairs_is_refused(shapes):
    with pytest.raises(ValueError, match="pairs need two values"):
        paired(*map(np.ones, shapes))


def test_arms_that_mirror_each_other_have_the_ends_of_their_ranges():
    arm = np.array([0.1, 0.2, 0.7, 0.3, 0.9])
    found = paired(arm, -arm)
    assert found.correlation == pytest.approx(-1.0)
    assert found.variance_ratio == pytest.approx(2.0)
    assert found.correlation >= -1.0
    equal = paired(3 * arm, 3 * arm)
    assert equal.correlation <= 1.0
    assert equal.variance_ratio == pytest.approx(0.0, abs=1e-12)
