"""Components of variance of seeds crossed with images, against planted ones."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from ablations.statistics.crossed import crossed_error


def planted(rng, seeds, images, deviations, mean=0.3):
    """Differences whose seeds, images and rest have these deviations."""
    of_seeds, of_images, of_both = deviations
    return (
        mean
        + of_seeds * rng.standard_normal((seeds, 1))
        + of_images * rng.standard_normal((1, images))
        + of_both * rng.standard_normal((seeds, images))
    )


def test_components_follow_from_the_mean_squares_of_the_two_way_layout():
    d = planted(np.random.default_rng(0), 5, 7, (1.0, 0.7, 0.5))
    rows, columns = np.indices(d.shape)
    data = pd.DataFrame({"d": d.ravel(), "s": rows.ravel(), "i": columns.ravel()})
    table = anova_lm(ols("d ~ C(s) + C(i)", data).fit())
    of_seeds, of_images, rest = table["mean_sq"]
    found = crossed_error(d, 0.05)
    assert found.of_both == pytest.approx(rest)
    assert found.of_seeds == pytest.approx((of_seeds - rest) / 7)
    assert found.of_images == pytest.approx((of_images - rest) / 5)
    error = (of_seeds + of_images - rest) / 35
    freedom = (35 * error) ** 2 / (of_seeds**2 / 4 + of_images**2 / 6 + rest**2 / 24)
    reach = scipy.stats.t.isf(0.025, freedom) * np.sqrt(error)
    assert found.interval == pytest.approx((d.mean() - reach, d.mean() + reach))
    assert found.share == pytest.approx(found.of_images / 7 / error)


def test_planted_components_are_found_on_the_average():
    rng = np.random.default_rng(1)
    found = [crossed_error(planted(rng, 8, 30, (0.5, 1.0, 2.0)), 0.05) for _ in range(1_000)]
    for name, variance in (("of_seeds", 0.25), ("of_images", 1.0), ("of_both", 4.0)):
        values = np.array([getattr(one, name) for one in found])
        error = values.std() / np.sqrt(len(values))
        # Components below 0 become 0, which raises the smallest a little.
        assert values.mean() == pytest.approx(variance, abs=3 * error + 0.02)


def over_seeds(d, level):
    """Student's interval of the seeds' means, for the same images."""
    found = scipy.stats.ttest_1samp(d.mean(axis=1), 0).confidence_interval(level)
    return found.low, found.high


def test_without_images_in_common_the_interval_is_that_of_the_seeds():
    d = np.arange(6.0)[:, None] + np.array([[1.0, -1.0], [-1.0, 1.0]] * 3)
    found = crossed_error(d, 0.1)
    assert (found.of_images, found.share) == (0, 0)
    assert found.interval == pytest.approx(over_seeds(d, 0.9))


def test_without_seeds_of_their_own_all_of_the_error_is_the_images():
    image = np.random.default_rng(3).standard_normal(40)
    found = crossed_error(np.tile(image, (8, 1)), 0.05)
    assert found.share == pytest.approx(1)
    assert found.of_images == pytest.approx(image.var(ddof=1))
    sample = scipy.stats.ttest_1samp(image, 0).confidence_interval(0.95)
    assert found.interval == pytest.approx((sample.low, sample.high))


@pytest.mark.parametrize("deviations", [(1.0, 0.0, 1.0), (0.3, 3.0, 1.0), (0.0, 1.0, 1.0)])
def test_the_interval_covers_the_mean_of_other_seeds_and_images(deviations):
    rng = np.random.default_rng(4)
    drawn = [planted(rng, 8, 40, deviations) for _ in range(1_000)]

    def covered(intervals):
        return np.mean([low <= 0.3 <= high for low, high in intervals])

    both = covered([crossed_error(d, 0.05).interval for d in drawn])
    assert both >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 1_000)
    if deviations[1] > 1:
        # What seeds alone say does not hold for other images.
        assert covered([over_seeds(d, 0.95) for d in drawn]) < 0.6


def test_unit_and_order_do_not_matter():
    rng = np.random.default_rng(5)
    d = planted(rng, 5, 6, (1.0, 1.0, 1.0))
    first = crossed_error(d, 0.05)
    second = crossed_error(-1e-6 * d[rng.permutation(5)][:, rng.permutation(6)], 0.05)
    assert second.share == pytest.approx(first.share)
    assert second.of_seeds == pytest.approx(1e-12 * first.of_seeds)
    assert second.interval == pytest.approx(tuple(-1e-6 * end for end in reversed(first.interval)))


def test_a_constant_moves_the_interval_and_changes_no_variance():
    d = planted(np.random.default_rng(6), 5, 6, (1.0, 1.0, 1.0))
    first, second = crossed_error(d, 0.05), crossed_error(d + 2, 0.05)
    assert second.interval == pytest.approx([end + 2 for end in first.interval])
    for name in ("of_seeds", "of_images", "of_both", "share"):
        assert getattr(second, name) == pytest.approx(getattr(first, name))


@pytest.mark.parametrize("seeds", [2, 7])
@pytest.mark.parametrize("value", [0.5, 0.1, -1e-9])
def test_equal_differences_have_no_error(value, seeds):
    found = crossed_error(np.full((seeds, 11), value), 0.05)
    assert (found.of_seeds, found.of_images, found.of_both, found.share) == (0, 0, 0, None)
    assert found.interval == pytest.approx((value, value))


@pytest.mark.parametrize(
    "d", [np.ones(4), np.ones((1, 4)), np.ones((4, 1)), np.full((3, 3), np.nan)]
)
def test_fewer_than_two_of_each_or_no_numbers_are_refused(d):
    with pytest.raises(ValueError, match="two seeds or more"):
        crossed_error(d, 0.05)
