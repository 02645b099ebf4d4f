"""What sharing seeds is worth stands with each verdict whose sides are both there."""

import numpy as np
import pytest

from ablations.spec import Hypothesis
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import judge

COMPARED = Hypothesis(metric="m", contrast=("a", "b"), direction="rises", smallest_effect=0.1)
ALONE = Hypothesis(metric="m", contrast=("a",), direction="rises", smallest_effect=0.1)


def runs_of(values):
    return {
        (arm, seed): Run(status="finished", start={}, end={"m": value})
        for arm, of_arm in zip("ab", values, strict=True)
        for seed, value in enumerate(of_arm)
    }


def test_a_verdict_says_how_its_sides_hang_together():
    values = np.random.default_rng(0).standard_normal((2, 8))
    found = judge({"h": COMPARED}, {}, runs_of(values), range(8))["h"].pairing
    assert found.correlation == pytest.approx(np.corrcoef(values)[0, 1])
    variances = values.var(axis=1, ddof=1).sum()
    assert found.variance_ratio == pytest.approx((values[0] - values[1]).var(ddof=1) / variances)


def test_two_seeds_hang_together_wholly_or_against_each_other():
    runs = runs_of([(1.0, 3.0), (2.0, 5.0)])
    found = judge({"h": COMPARED}, {}, runs, range(2))["h"].pairing
    assert found.correlation == pytest.approx(1)
    # Variances of 1, 3 and of 2, 5 are 2 and 4.5, that of -1, -2 is 0.5.
    assert found.variance_ratio == pytest.approx(0.5 / 6.5)


def test_one_side_or_a_run_that_is_not_there_leaves_nothing_to_pair():
    values = np.random.default_rng(0).standard_normal((2, 8))
    runs = runs_of(values)
    assert judge({"h": ALONE}, {}, runs, range(8))["h"].pairing is None
    del runs["b", 3]
    assert judge({"h": COMPARED}, {}, runs, range(8))["h"].pairing is None
